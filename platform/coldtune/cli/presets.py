"""`coldtune presets`: list the named base configurations, or show one."""

from __future__ import annotations

import argparse
import difflib
from dataclasses import asdict

from rich.console import Console

from coldtune.cli.common import Commands
from coldtune.cli.json_output import add_json_flag, print_json
from coldtune.cli.tables import ListTable


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser("presets", help="list the named base configurations, or show one")
    parser.add_argument(
        "name", nargs="?", metavar="NAME", help="print this preset as YAML, with the defaults of the keys it leaves out"
    )
    add_json_flag(parser).set_defaults(call=_presets)


def _presets(options: argparse.Namespace, console: Console) -> int:
    if options.name is None:
        _list(options.json, console)
    else:
        _show(options.name, options.json)
    return 0


def _list(as_json: bool, console: Console) -> None:
    from coldtune import presets

    found = [presets.summary(name) for name in presets.names()]
    if as_json:
        print_json([asdict(preset) for preset in found])
        return
    table = ListTable("", ("name", "degradation"), ("T", "leftover"), ("table", "what it is"))
    for preset in found:
        leftover = "-" if preset.leftover is None else f"{preset.leftover:.2g}"
        place = ", ".join(preset.tables) or "-"
        table.add_row(preset.name, preset.kind, str(preset.steps), leftover, place, preset.title)
    console.print(table, highlight=False)


def _show(name: str, as_json: bool) -> None:
    """Print the whole configuration of a preset. It may stand below `base:` in the file of a space."""
    import yaml

    from coldtune import presets
    from coldtune.config import plain, shorten
    from coldtune.diffusion import build_degradation
    from coldtune.stages.trial import parse_trial

    known = presets.names()
    if name not in known:
        similar = difflib.get_close_matches(name, known, 3, 0.5)
        meant = f" (did you mean {' or '.join(similar)}?)" if similar else ""
        raise ValueError(f"presets {shorten(name)}: no such preset{meant}. `coldtune presets` lists all.")
    tree = plain(parse_trial(presets.load(name)))
    tree["degradation"] = plain(build_degradation(tree["degradation"], presets.image_shape(tree)).config)
    if as_json:
        print_json(tree)
        return
    text = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=10_000)
    print(f"# {name}: {presets.describe(name)}\n{text}", end="")

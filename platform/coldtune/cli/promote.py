"""`coldtune study promote`: train a pruned trial to its end."""

from __future__ import annotations

import argparse
import shlex

from rich.console import Console

from coldtune.cli.common import Commands, add_home_flag, find_home, find_study


def add(verbs: Commands) -> None:
    """Add the verb to `coldtune study`."""
    promote = add_home_flag(verbs.add_parser("promote", help="train a pruned trial to its end after all"))
    promote.add_argument("name", metavar="STUDY")
    promote.add_argument("trial", type=int, metavar="TRIAL", help="the number of a pruned trial")
    promote.set_defaults(call=_promote)


def _promote(options: argparse.Namespace, console: Console) -> int:
    from coldtune.environment import runner
    from coldtune.studies.trials.promotion import promote, queued_promotions
    from coldtune.studies.trials.reading import read_study

    folder = find_study(find_home(options), options.name)
    reader = read_study(folder)
    resume = f"{runner()}coldtune study resume {shlex.quote(folder.name)} --home {shlex.quote(str(folder.home))}"
    number = promote(reader, options.trial, resume)
    trials = max(int(folder.start()["trials"]), reader.finished()) + queued_promotions(reader)
    console.print(
        f"trial {options.trial} of {folder.name} will continue as trial {number}, from its last rung, and is not "
        "pruned again; a driver that runs now takes it next",
        highlight=False,
    )
    console.print(f"  run it  {resume} --trials {trials}", highlight=False, soft_wrap=True, markup=False)
    return 0

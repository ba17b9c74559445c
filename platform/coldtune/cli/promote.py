"""`coldtune study promote`: queue a pruned trial, so that it is trained to its end."""

from __future__ import annotations

import argparse

from rich.console import Console

from coldtune.cli.common import Commands, add_home_flag, find_home, find_study


def add(verbs: Commands) -> None:
    """Add the verb to `coldtune study`."""
    promote = add_home_flag(
        verbs.add_parser("promote", help="queue a pruned trial, which the next driver trains to its end")
    )
    promote.add_argument("name", metavar="STUDY")
    promote.add_argument("trial", type=_parse_trial, metavar="TRIAL", help="the number of a pruned trial or setting")
    promote.set_defaults(call=_promote)


def _parse_trial(text: str) -> int:
    setting, point, replicate = text.partition(".")
    if point and setting.isdecimal() and replicate.isdecimal():
        raise argparse.ArgumentTypeError(f"{text}: is a training of setting {setting}. Name the setting: {setting}")
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: allowed: the number of a pruned trial or setting") from None


def _promote(options: argparse.Namespace, console: Console) -> int:
    from coldtune.environment import coldtune_command
    from coldtune.studies.trials.promotion import promote, queued_promotions
    from coldtune.studies.trials.reading import read_study

    folder = find_study(find_home(options), options.name)
    reader = read_study(folder)
    resume = coldtune_command("study resume", folder.home, folder.name)
    number = promote(reader, options.trial, resume)
    trials = max(int(folder.start()["trials"]), reader.finished()) + queued_promotions(reader)
    what = "setting" if reader.replicated else "trial"
    console.print(
        f"{what} {options.trial} of {folder.name} will continue as {what} {number}, from its last rung, and is not "
        "pruned again; a driver that runs now takes it next",
        highlight=False,
    )
    command = coldtune_command("study resume", folder.home, folder.name, flags=("--trials", trials))
    console.print(f"  run it  {command}", highlight=False, soft_wrap=True, markup=False)
    return 0

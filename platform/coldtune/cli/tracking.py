"""`coldtune tracking`: deliver records that wait."""

from __future__ import annotations

import argparse

from rich.console import Console

from coldtune.cli.common import Commands, home_of, with_home


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser("tracking", help="deliver records that wait")
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    sync = with_home(verbs.add_parser("sync", help="deliver what an outage or a killed driver left in the spools"))
    sync.add_argument("--tracking-uri", metavar="URI", help="default: that of each study")
    sync.set_defaults(call=_sync)


def _sync(options: argparse.Namespace, console: Console) -> int:
    from coldtune import tracking
    from coldtune.studies.folder import studies
    from coldtune.studies.run import EXPERIMENT

    home = home_of(options)
    left = 0
    for folder in studies(home):
        uri = options.tracking_uri or folder.start()["tracking_uri"] or tracking.default_uri(home)
        drained = tracking.drain(folder.spool, tracking.prepare(uri, EXPERIMENT, home / "artifacts"))
        left += drained.pending
        state = f"{drained.pending:,} bytes wait: {drained.error}" if drained.pending else "all delivered"
        console.print(f"{folder.name}: {state}", highlight=False)
    return 1 if left else 0

"""The command line of `jobs/paper_table.py`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from coldtune.cli.arguments import Parser
from coldtune.cli.job import add_common_flags, run_and_exit

if TYPE_CHECKING:
    from coldtune.studies.spec.study import StudySpec


def parser(doc: str) -> argparse.ArgumentParser:
    """Build the parser of the job `paper_table`.

    Args:
        doc: The docstring of the job, which `--help` shows.
    """
    parser = Parser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--table", required=True, metavar="N", help="table 1 to 6, or 5.3 or A.7 for FIDs that the text gives"
    )
    parser.add_argument(
        "--dataset", default="digits", metavar="NAME", help="digits (default), mnist, cifar10, celeba, afhq"
    )
    parser.add_argument(
        "--preset", default="quick", metavar="NAME", help="quick (default), or paper for the paper's own settings"
    )
    return add_common_flags(
        parser, "change all trials of the table, for example training.steps=400. The table then says so"
    )


def main(doc: str | None, arguments: Sequence[str] | None = None) -> None:
    """Fill one of the paper's tables as the command line says, and exit with the codes of any job.

    Args:
        doc: The docstring of the job, which `--help` shows.
        arguments: The command line. None means `sys.argv`.
    """
    options = parser((doc or "").strip()).parse_args(arguments)

    def build_table() -> StudySpec:
        from coldtune.studies.designs.paper_table import build_table_study

        return build_table_study(
            options.table, options.dataset, options.preset, seed=options.seed, settings=options.settings
        )

    run_and_exit(build_table, options, trials=1)

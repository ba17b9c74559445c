"""The command line of `jobs/paper_table.py`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from coldtune.cli.job import add_common, run_guarded

if TYPE_CHECKING:
    from coldtune.studies.spec.study import StudySpec


def parser(doc: str) -> argparse.ArgumentParser:
    """The flags of `paper_table`: which table, and those that every job has."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--table", required=True, metavar="N", help="1 to 6, or 5.3 or A.7 for FIDs printed in the text")
    made.add_argument(
        "--dataset", default="digits", metavar="NAME", help="digits (default), mnist, cifar10, celeba, afhq"
    )
    made.add_argument("--preset", default="quick", metavar="NAME", help="quick (default), or the paper's own: paper")
    return add_common(made, "change all trials of the table, e.g. training.steps=400; the table then says so")


def main(doc: str | None, arguments: Sequence[str] | None = None) -> None:
    """Fill one of the paper's tables as the command line says, and exit with the codes of any job."""
    options = parser((doc or "").strip()).parse_args(arguments)

    def spec() -> StudySpec:
        from coldtune.studies.designs.paper_table import build

        return build(options.table, options.dataset, options.preset, seed=options.seed, settings=options.settings)

    run_guarded(spec, options, trials=1)

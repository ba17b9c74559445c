"""`coldtune report`: the answer of a study as one page, or for a paper or a program."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from coldtune.cli.common import Commands, add_home_flag, find_home, find_study
from coldtune.cli.outputs import STDOUT, add_overwrite_flag, new_file, write_bytes
from coldtune.places import STREAMS

if TYPE_CHECKING:
    from coldtune.reports.page.document import Report
    from coldtune.studies.trials.reading import StudyReader

_RENEW_S = 15  # between two pages of a study that runs

FORMATS = ("html", "md", "tex", "json")

DESCRIPTION = """
Write the answer of a study: sentences, tables, figures, pictures, and the commands that repeat it.
The page is a single file that opens without a network. Markdown and LaTeX have everything but the figures, and JSON has
all numbers for programs.
"""


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "report",
        help="write a study's answer as one page (or as Markdown, LaTeX or JSON)",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_home_flag(parser)
    parser.add_argument("study", metavar="STUDY", help="name of the study")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help="the file, or - for the standard output (default: report.html, or with the format's ending)",
    )
    add_overwrite_flag(parser)
    parser.add_argument("--format", choices=FORMATS, help="the format (default: that of the file's ending, else html)")
    parser.add_argument(
        "--equal-within",
        type=float,
        metavar="D",
        help="a difference of the objective that does not matter, so that settings can be practically equal (default: "
        "comparisons.equal_within of the space)",
    )
    parser.add_argument(
        "--live",
        action="store_true",
        help=f"write the page again every {_RENEW_S} s while the study runs. A browser that shows it loads it again",
    )
    parser.set_defaults(call=_report)


def _report(options: argparse.Namespace, console: Console) -> int:
    kind = _format(options)
    file = new_file(options.output or Path(f"report.{kind}"), "--output", options.overwrite)
    if options.live and (kind != "html" or str(file) in STREAMS):
        raise ValueError("--live: renews a page in a file, so the format must be html and the output a file")
    folder = find_study(find_home(options), options.study)

    from coldtune.studies.progress.report.gather import gather_report
    from coldtune.studies.spec.comparisons import check_equal_within
    from coldtune.studies.trials.reading import read_study

    if options.equal_within is not None:
        check_equal_within(options.equal_within)
    reader = read_study(folder)

    def write(renew: int | None = None) -> None:
        # While the study runs, its importance would have to be computed anew for each page.
        report = gather_report(folder, reader, options.equal_within, quick=renew is not None)
        text = render(report, kind, renew)
        write_bytes(file, text.encode("utf-8", "replace"))

    if options.live:
        _write_while_running(reader, write, file, console)
    write()
    if str(file) not in STREAMS:
        console.print(Text(f"{file} ({file.stat().st_size / 1024:,.0f} KiB)"), soft_wrap=True)
    return 0


def _write_while_running(reader: StudyReader, write: Callable[[int], None], file: Path, console: Console) -> None:
    """Write the page again and again while a driver of the study is alive, or until Ctrl-C."""
    told = False
    try:
        while reader.lease.others():
            write(_RENEW_S)
            if not told:
                text = f"{file} is renewed every {_RENEW_S} s. Ctrl-C ends this, and the study goes on."
                console.print(Text(text), soft_wrap=True)
                console.file.flush()  # it may be a file, and this process goes on for long
                told = True
            time.sleep(_RENEW_S)
    except KeyboardInterrupt:
        console.print()


def _format(options: argparse.Namespace) -> str:
    """Return the format of the report. Raise ValueError if neither the flag nor the file's ending says it."""
    if options.format is not None:
        return str(options.format)
    if options.output is None or str(options.output) in (STDOUT, *STREAMS):
        return FORMATS[0]
    ending = options.output.suffix.lower().removeprefix(".")
    kind: str = {"htm": "html", "markdown": "md"}.get(ending, ending)
    if kind not in FORMATS:
        raise ValueError(
            f"--output {options.output}: the ending names no format. Let it end in .html, .md, .tex or .json, or name "
            "the format with --format."
        )
    return kind


def render(report: Report, kind: str, renew: int | None = None) -> str:
    """Return a report in one of the `FORMATS`. `renew` is that of a page (`coldtune.reports.page.html.as_html`)."""
    from coldtune.reports.page.as_json import as_json
    from coldtune.reports.page.as_text import as_latex, as_markdown
    from coldtune.reports.page.html import as_html

    if kind == "html":
        return as_html(report, renew)
    formats: dict[str, Callable[[Report], str]] = {"md": as_markdown, "tex": as_latex, "json": as_json}
    return formats[kind](report)

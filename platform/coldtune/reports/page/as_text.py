"""The report as Markdown and as LaTeX: everything but its figures and pictures."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from coldtune.reports.latex import NEEDS, latex_line, latex_table, tex
from coldtune.reports.page.document import Fact, Report, Table
from coldtune.reports.page.escape import FORBIDDEN

_MOST_ROWS = 40  # of a table in LaTeX, because a longer table does not fit on a page


def as_markdown(report: Report) -> str:
    """Return the report as GitHub's Markdown."""
    lines = [f"# {_md(report.study)}", "", _md(report.state), ""]
    for title, parts in _sections(report):
        lines += [f"## {title}", ""]
        for part in parts:
            lines += _markdown_part(part)
    return "\n".join(lines)


def as_latex(report: Report) -> str:
    r"""Return the report as LaTeX for a document. The document needs `\usepackage{booktabs}`."""
    lines = [NEEDS, rf"\section*{{{_tex(report.study)}}}", _tex(report.state), ""]
    for title, parts in _sections(report):
        lines += [rf"\subsection*{{{_tex(title)}}}"]
        for part in parts:
            lines += [*_latex_part(part), ""]
    return "\n".join(lines)


_Part = Sequence[str] | Sequence[Fact] | Table


def _sections(report: Report) -> Iterator[tuple[str, list[_Part]]]:
    """Yield the sections in the order of the page, without those that are empty."""
    importance, pictures = report.importance, report.pictures
    sections: list[tuple[str, list[_Part | None]]] = [
        ("Question", [report.question, report.keys]),
        ("Answer", [report.answer]),
        ("Results", [report.table, report.trials]),
        ("Pictures", [[] if pictures is None else [pictures.note]]),
        ("Importance", [] if importance is None else [importance.sentences, importance.notes]),
        ("Effects", [report.effects]),
        ("Search", [[figure.summary for figure in report.search]]),
        (
            "Diagnostics",
            [[" ".join(filter(None, (check.sentence, check.todo, check.command))) for check in report.checks]],
        ),
        ("Provenance", [report.provenance]),
        ("Repeat", [report.commands]),
    ]
    for title, parts in sections:
        if filled := [part for part in parts if part]:
            yield title, filled


def _markdown_part(part: _Part) -> list[str]:
    if isinstance(part, Table):
        return _markdown_table(part)
    lines = []
    for each in part:
        if isinstance(each, Fact):
            lines.append(f"- {_md(each.head)}: {_code(each.text) if each.command else _md(each.text)}")
        else:
            lines.append(f"- {_md(each)}")
    return [*lines, ""]


def _markdown_table(table: Table) -> list[str]:
    lines = [f"**{_md(table.caption)}**", "", _row(map(_md, table.heads))]
    lines.append(_row("--:" if numeric else ":--" for numeric in table.numeric))
    for row in table.rows:
        cells = [f"**{_md(cell)}**" if row.bold and cell else _md(cell) for cell in row.cells]
        lines.append(_row(cells + [""] * (len(table.heads) - len(cells))))
    return [*lines, "", *(f"- {_md(line)}" for line in table.foot), *([""] if table.foot else [])]


def _latex_part(part: _Part) -> list[str]:
    if isinstance(part, Table):
        return _latex_table(part)
    items = []
    for each in part:
        text = rf"{each.head}: {each.text}" if isinstance(each, Fact) else each
        items.append(rf"\item {_tex(text)}")
    return [r"\begin{itemize}", *items, r"\end{itemize}"]


def _latex_table(table: Table) -> list[str]:
    body = []
    for row in table.rows[:_MOST_ROWS]:
        cells = [rf"\textbf{{{_tex(cell)}}}" if row.bold and cell else _tex(cell) for cell in row.cells]
        if len(cells) == 1:
            cells = [rf"\multicolumn{{{len(table.heads)}}}{{l}}{{{cells[0]}}}"]
        body.append(latex_line(cells))
    more = len(table.rows) - _MOST_ROWS
    foot = [*table.foot, *([f"{more:,} more rows are not shown."] if more > 0 else [])]
    layout = "".join("r" if numeric else "l" for numeric in table.numeric)
    heads = [latex_line([_tex(head) for head in table.heads])]
    return latex_table(layout, heads, body, list(map(_tex, foot)), caption=_tex(table.caption))


def _row(cells: Iterator[str] | Sequence[str] | map[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _clean(text: str) -> str:
    """Return a text in a single line, without characters that no format shows."""
    return " ".join(FORBIDDEN.sub(" ", text).splitlines())


def _md(text: str) -> str:
    """Return a text for Markdown. It cannot make a link, HTML or another cell."""
    text = _clean(text).replace("\\", "\\\\").replace("<", "&lt;").replace("|", "\\|")
    return text.replace("](", "]\\(").replace("*", "\\*").replace("`", "\\`")


def _code(text: str) -> str:
    """Return a text as code. Its fence is longer than any run of backticks in it."""
    text = _clean(text)
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence} {text} {fence}" if len(fence) > 1 else f"`{text}`"


def _tex(text: str) -> str:
    return tex(_clean(text))

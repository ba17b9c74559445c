"""The report as Markdown and as LaTeX: everything but its figures and pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from coldtune.reports.escape import split_code
from coldtune.reports.latex import NEEDS, latex_line, latex_table, tex
from coldtune.reports.markdown import md, md_code, md_prose, md_row, one_line
from coldtune.reports.page.document import Fact, Report, Table

_MOST_ROWS = 40  # of a table in LaTeX, because a longer table does not fit on a page


def as_markdown(report: Report) -> str:
    """Return the report as GitHub's Markdown."""
    lines = [f"# {md(report.study)}", "", md(report.state), ""]
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
            lines.append(f"- {md(each.head)}: {md_code(each.text) if each.command else md(each.text)}")
        else:
            lines.append(f"- {md_prose(each)}")
    return [*lines, ""]


def _markdown_table(table: Table) -> list[str]:
    lines = [f"**{md(table.caption)}**", "", md_row(map(md, table.heads))]
    lines.append(md_row("--:" if numeric else ":--" for numeric in table.numeric))
    for row in table.rows:
        cells = [f"**{md(cell)}**" if row.bold and cell else md(cell) for cell in row.cells]
        lines.append(md_row(cells + [""] * (len(table.heads) - len(cells))))
    return [*lines, "", *(f"- {md_prose(line)}" for line in table.foot), *([""] if table.foot else [])]


def _latex_part(part: _Part) -> list[str]:
    if isinstance(part, Table):
        return _latex_table(part)
    items = []
    for each in part:
        text = _tex(f"{each.head}: {each.text}") if isinstance(each, Fact) else _tex_prose(each)
        items.append(rf"\item {text}")
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
    return latex_table(layout, heads, body, list(map(_tex_prose, foot)), caption=_tex(table.caption))


def _tex_prose(sentence: str) -> str:
    """Return a sentence for LaTeX. Its words between backticks, such as a command, are code."""
    parts = []
    for part, code in split_code(one_line(sentence)):
        # `tex` takes the spaces at the ends away.
        before, after = (" " * end for end in (part[0].isspace(), part[-1].isspace()))
        parts.append(rf"\texttt{{{_tex(part)}}}" if code else f"{before}{_tex(part)}{after}")
    return "".join(parts)


def _tex(text: str) -> str:
    return tex(one_line(text))

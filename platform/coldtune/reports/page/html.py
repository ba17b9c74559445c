"""The report as a single HTML file. It opens from a disk without a network.

The figures are static SVG, and a short script of our own adds text at the pointer and sorting. A library of charts
would be larger than the whole page of a study. It would also draw nothing if scripts are forbidden, as in a preview.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Sequence
from importlib import resources

from coldtune.reports.escape import escape, split_code
from coldtune.reports.page.document import (
    Check,
    Fact,
    Figure,
    Importance,
    Pictures,
    Report,
    Strip,
    Table,
    TableRow,
)
from coldtune.reports.page.svg import SERIES, draw, draw_sign

_PRINTED = 60  # rows of a table on paper


def as_html(report: Report, renew: int | None = None) -> str:
    """Return the report as a page.

    Args:
        renew: Seconds until a browser loads the page again. None for a page that stays as it is.
    """
    style, script = (
        resources.files(__package__).joinpath(f"page.{kind}").read_text(encoding="utf-8") for kind in ("css", "js")
    )
    policy = (
        f"default-src 'none'; img-src data:; style-src {_digest(style)}; script-src {_digest(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
    sections = [(name, title, body) for name, title, body in _sections(report) if body]
    links = "".join(f'<li><a href="#{name}">{title}</a></li>' for name, title, _ in sections)
    renewed = "" if renew is None else f'<meta http-equiv="refresh" content="{renew}">\n'
    live = "" if renew is None else f"<p>The study runs. This page loads itself again every {renew} s.</p>"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">\n{renewed}'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<link rel="icon" href="data:,">\n'
        f"<title>{escape(report.study)}: report</title>\n<style>{style}</style>\n</head>\n<body>\n"
        '<a class="skip" href="#content">Skip to the report</a>\n'
        f"<header><h1>{escape(report.study)}</h1><p>{escape(report.state)}</p>{live}</header>\n"
        f'<div class="page">\n<nav aria-label="Sections"><ol>{links}</ol></nav>\n<main id="content" tabindex="-1">\n'
        f"{''.join(_section(*section) for section in sections)}</main>\n</div>\n"
        f'<div id="tip" role="status" aria-live="polite"></div>\n<script>{script}</script>\n</body>\n</html>\n'
    )


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _section(name: str, title: str, body: str) -> str:
    first = _classes("first" if name == "answer" else "")
    head = f'<section id="{name}" aria-labelledby="{name}-h"{first}>\n<h2 id="{name}-h">{title}</h2>\n'
    return f"{head}{body}\n</section>\n"


def _classes(*names: str) -> str:
    """Return the attribute of these classes. An empty name is none."""
    given = " ".join(filter(None, names))
    return f' class="{given}"' if given else ""


def _sections(report: Report) -> list[tuple[str, str, str]]:
    """Return the name, the title and the content of each section. A section without content is left out."""
    number = iter(range(1, 10_000))

    def figure(shown: Figure | None, css: str = "") -> str:
        return "" if shown is None else _figure(shown, f"f{next(number)}", css)

    tables = _table(report.table, "results", sort=True)
    tables += "" if report.trials is None else _table(report.trials, "trials", sort=True)
    effects = ""
    if report.effects is not None:
        effects = _table(report.effects, "effects-of") + figure(report.effects_figure, "headline")
    keys = "" if report.keys is None else _table(report.keys, "keys")
    return [
        ("question", "Question", _sentences(report.question) + keys),
        ("answer", "Answer", _sentences(report.answer, "answer") + figure(report.headline, "headline")),
        ("table", "Results", tables),
        ("pictures", "Pictures", _pictures(report.pictures)),
        ("importance", "Importance", _importance(report.importance, figure)),
        ("effects", "Effects", effects),
        ("search", "Search", _charts([figure(each) for each in report.search])),
        ("diagnostics", "Diagnostics", _checks(report.checks)),
        ("provenance", "Provenance", _facts(report.provenance)),
        ("repeat", "Repeat", _facts(report.commands)),
    ]


def _sentences(sentences: Sequence[str], css: str = "") -> str:
    if not sentences:
        return ""
    items = "".join(f"<li>{_prose(sentence)}</li>" for sentence in sentences)
    return f"<ul{_classes(css)}>{items}</ul>\n"


def _prose(sentence: str) -> str:
    """Return a sentence. Its words between backticks, such as a command, are code."""
    return "".join(f"<code>{escape(part)}</code>" if code else escape(part) for part, code in split_code(sentence))


def _figure(figure: Figure, name: str, css: str = "") -> str:
    drawing = draw(figure, name)
    wide = "wide" if drawing.wide else ""
    legend = ""
    if len(drawing.groups) > 1:
        signs = "".join(
            f"<li>{draw_sign(place % SERIES, group in drawing.lines)}{escape(group)}</li>"
            for place, group in enumerate(drawing.groups)
        )
        legend = f'<ul class="legend">{signs}</ul>'
    svg = drawing.svg
    if drawing.wide:
        svg = f'<div class="scroll" role="region" aria-label="{escape(figure.title)}" tabindex="0">{svg}</div>'
    note = " ".join(filter(None, (figure.summary, figure.note, *drawing.notes)))
    return (
        f"<figure{_classes(css, wide)}><figcaption><h3>{escape(figure.title)}</h3>{legend}"
        f'</figcaption>\n{svg}\n<p class="note">{_prose(note)}</p></figure>\n'
    )


def _charts(figures: Sequence[str]) -> str:
    return f'<div class="charts">\n{"".join(figures)}</div>\n' if figures else ""


def _table(table: Table, name: str, sort: bool = False) -> str:
    """Return a table in a box that scrolls. Scripts may sort it, if it has no headings between its rows."""
    columns = zip(table.heads, table.numeric, strict=True)
    heads = "".join(
        f'<th scope="col"{_classes("n" if numeric else "")}>{escape(head)}</th>' for head, numeric in columns
    )
    rows = "".join(_row(row, table, place) for place, row in enumerate(table.rows))
    foot = _sentences(table.foot, "note")
    later = len(table.rows) - _PRINTED
    cut = f'<p class="cut">{later:,} more rows are not printed. The page and its JSON form have them.</p>' * (later > 0)
    sortable = f' class="sort" data-printed="{_PRINTED}"' if sort and len(table.rows) > 1 else ""
    return (
        f'<div class="table"><div class="scroll" role="region" aria-labelledby="{name}-c" tabindex="0">'
        f'<table{sortable}><caption id="{name}-c">{escape(table.caption)}</caption>\n'
        f"<thead><tr>{heads}</tr></thead>\n"
        f"<tbody>{rows}</tbody></table></div>{cut}\n{foot}</div>\n"
    )


def _row(row: TableRow, table: Table, place: int) -> str:
    if len(row.cells) == 1:
        return f'<tr><th class="group" scope="rowgroup" colspan="{len(table.heads)}">{escape(row.cells[0])}</th></tr>\n'
    cells = []
    for column, (cell, numeric) in enumerate(zip(row.cells, table.numeric, strict=True)):
        css = _classes("n" if numeric else "text" if len(cell) > 40 else "")
        text = escape(cell)
        cells.append(f'<th scope="row"{css}>{text}</th>' if column == 0 else f"<td{css}>{text}</td>")
    css = _classes("bold" if row.bold else "", "later" if place >= _PRINTED else "")
    return f"<tr{css}>{''.join(cells)}</tr>\n"


def _pictures(pictures: Pictures | None) -> str:
    if pictures is None:
        return ""
    parts = [f"<p>{_prose(pictures.note)}</p>\n{_strips(pictures.strips)}"]
    for each in pictures.more:
        parts.append(f"<h3>{escape(each.title)}</h3>\n<p>{_prose(each.note)}</p>\n{_strips(each.strips)}")
        if each.moving:
            parts.append(f"<details><summary>Play them</summary>\n{_strips(each.moving)}</details>\n")
    return "".join(parts)


def _strips(strips: Sequence[Strip]) -> str:
    rows = "".join(
        f'<dt>{escape(each.label)}</dt><dd><img src="data:{each.media};base64,{each.data}" width="{each.width}" '
        f'height="{each.height}" alt="{escape(each.alt)}"></dd>\n'
        for each in strips
    )
    return f'<dl class="strips">{rows}</dl>\n' if rows else ""


def _importance(importance: Importance | None, figure: Callable[[Figure], str]) -> str:
    if importance is None:
        return ""
    notes = "".join(f'<p class="note">{_prose(note)}</p>\n' for note in importance.notes)
    return _sentences(importance.sentences) + _charts([figure(each) for each in importance.figures]) + notes


def _checks(checks: Sequence[Check]) -> str:
    words = {"ok": "fine", "note": "note", "warning": "warning"}
    items = []
    for check in checks:
        command = f"<pre><code>{escape(check.command)}</code></pre>" if check.command else ""
        text = " ".join(filter(None, (check.sentence, check.todo)))
        head = f"<b>{words[check.level]}, {escape(check.title)}:</b>"
        items.append(f'<li class="check {check.level}">{head} {_prose(text)}{command}</li>')
    return f"<ul>{''.join(items)}</ul>\n" if items else ""


def _facts(facts: Sequence[Fact]) -> str:
    """Return headings with their texts. Facts in a row with the same heading share it."""
    parts, before = [], None
    for fact in facts:
        text = f"<pre><code>{escape(fact.text)}</code></pre>" if fact.command else escape(fact.text)
        parts.append(("" if fact.head == before else f"<dt>{escape(fact.head)}</dt>") + f"<dd>{text}</dd>\n")
        before = fact.head
    return f"<dl>{''.join(parts)}</dl>\n" if parts else ""

"""The page of a document: well-formed, offline, readable, and the same whenever it is made. No study is needed."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace

import pytest

from coldtune.reports.page.as_json import as_json
from coldtune.reports.page.as_text import as_latex, as_markdown
from coldtune.reports.page.document import (
    Axis,
    Chart,
    Check,
    Estimate,
    Fact,
    Figure,
    Forest,
    Importance,
    Line,
    Parallel,
    Path,
    Pictures,
    Point,
    Report,
    Row,
    Spread,
    Strip,
    Table,
    TableRow,
)
from coldtune.reports.page.html import as_html
from coldtune.reports.page.scales import Scale
from coldtune.reports.page.svg import draw
from page_checks import Page, check_page

HOSTILE = [
    "<script>alert(1)</script>", "</style><b>x", "</title>", "</script>", "\" onload='x'", "' y", "&amp;&#0;", "]]>",
    "-->",
    "a\x00b\x1b[31m", "x\ud800y", "[x](javascript:y)", "| a | b |", "`id`", "$x$ \\input{y} % z", "\u202ereversed",
    "a\nb",
]  # fmt: skip
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="


def chart(count: int, name: str = "T") -> Chart:
    """Return a chart of points on a spiral, so that few of them coincide."""
    spots = [(i * math.cos(i), i * math.sin(i)) for i in range(count)]
    points = tuple(Point(x, y, f"trial {i}: {name}", "ab"[i % 2], y - 1, y + 1) for i, (x, y) in enumerate(spots))
    return Chart(f"FID over {name}", f"{count} trials", Axis(name), Axis("FID"), points, (Line(name, tuple(spots)),))


def report(word: str = "x", count: int = 3) -> Report:
    """Return a report with every part. `word` stands in every place of a name."""
    table = Table(word, ("trial", word), (True, False), (TableRow(("★0", word), True), TableRow((word,))), (word,))
    forest = Forest(
        word, word, Axis(word), (Estimate(word, 0.5, word, -1.0, 1.0, (0.1, 0.9), word),), zero=True, note=word
    )
    parallel = Parallel(
        word, word, (Axis(word, choices=(word, "b")), Axis("T"), Axis("FID", log=True)),
        (Path((0.0, 10.0, 1.0), word, "best"), Path((1.0, None, 30.0), word, "background")),
    )  # fmt: skip
    row = Row(0, "trial 0", "finished", {word: word}, {"fid": math.nan}, {"fid": Spread(None, 1)}, repeat=(word,))
    return Report(
        study=word, state=word, complete=True, question=(word,), keys=table, answer=(word,), headline=forest,
        table=table, rows=(row,), trials=table, pictures=Pictures(word, (Strip(word, word, "image/png", 1, 1, PIXEL),)),
        importance=Importance((word,), (forest,), (word,)), effects=table, effects_figure=forest,
        search=(chart(count, word), parallel), checks=(Check(word, word, word, "warning", word),),
        provenance=(Fact(word, word),), protocol={"key": word}, commands=(Fact(word, word, command=True),),
    )  # fmt: skip


@pytest.mark.parametrize("word", ["x", *HOSTILE])
def test_page_with_hostile_names_keeps_its_structure(word: str) -> None:
    page, plain = check_page(as_html(report(word))), check_page(as_html(report()))
    # In a sentence, backticks make code. It is the only element that a name can make.
    assert [tag for tag, _, _ in page.elements if tag != "code"] == [
        tag for tag, _, _ in plain.elements if tag != "code"
    ]
    shown = re.sub(r"[\x00\x1b\ud800\u202e]", "\ufffd", word)
    assert page.inside("h1") == shown


def test_page_shows_words_between_backticks_as_code_in_sentences() -> None:
    words = replace(report(), answer=("Use `--replicates <K>`, not `x",))
    assert "<li>Use <code>--replicates &lt;K&gt;</code>, not `x</li>" in as_html(words)
    assert "- Use `--replicates <K>`, not \\`x" in as_markdown(words)
    assert r"\item Use \texttt{-{}-replicates \textless{}K\textgreater{}}, not \textasciigrave{}x" in as_latex(words)


def test_page_has_its_sections_in_order() -> None:
    page = check_page(as_html(report()))
    names = [attributes["id"] for attributes in page.all("section")]
    assert names == [
        "question", "answer", "table", "pictures", "importance", "effects", "search", "diagnostics", "provenance",
        "repeat",
    ]  # fmt: skip
    assert [link["href"] for link in page.all("a")][1:] == [f"#{name}" for name in names]


def test_page_of_an_empty_document_has_no_empty_section() -> None:
    nothing = Table("0 trials", ("trial",), (True,), ())
    empty = Report("s", "0 of 3 trials ended.", False, (), None, ("No trial has ended yet.",), None, nothing, ())
    page = check_page(as_html(empty))
    assert [attributes["id"] for attributes in page.all("section")] == ["answer", "table"]
    for text in (as_markdown(empty), as_latex(empty), as_json(empty)):
        assert "No trial has ended yet." in text


def test_page_is_the_same_when_made_again() -> None:
    for write in (as_html, as_markdown, as_latex, as_json):
        assert write(report("a<b")) == write(report("a<b"))


def test_page_is_renewed_only_if_asked() -> None:
    assert "refresh" not in as_html(report())
    metas = Page(as_html(report(), renew=10)).all("meta")
    assert [meta["content"] for meta in metas if meta.get("http-equiv") == "refresh"] == ["10"]


def test_page_says_how_many_rows_are_not_printed() -> None:
    rows = tuple(TableRow((str(i),)) for i in range(75))
    long = replace(report(), table=Table("rows", ("trial",), (True,), rows), trials=None)
    assert "15 more rows are not printed" in as_html(long)
    assert "35 more rows are not shown" in as_latex(long)


def test_json_has_null_for_nan_and_no_pixels() -> None:
    tree = json.loads(as_json(report()), parse_constant=lambda word: pytest.fail(word))
    assert tree["schema"] == 1
    assert tree["rows"][0]["metrics"] == {"fid": None}
    assert tree["rows"][0]["spreads"]["fid"] == {"sd": None, "n": 1}
    assert PIXEL not in as_json(report())
    assert [figure["kind"] for figure in tree["search"]] == ["chart", "parallel"]


@pytest.mark.parametrize("word", HOSTILE)
def test_text_formats_with_hostile_names_stay_in_their_places(word: str) -> None:
    text, tex = as_markdown(report(word)), as_latex(report(word))
    outside = re.sub(r"`+ ?.*?`+", "", text)
    assert not re.search(r"<\w|\]\(", outside)
    assert all(line.count("|") - line.count("\\|") in (0, 3) for line in outside.splitlines())
    assert "\\input" not in tex
    assert not re.search(r"[\x00\x1b\ud800]", text + tex)
    text.encode()
    tex.encode()


@pytest.mark.parametrize("count", [0, 1, 2, 5000])
def test_chart_of_many_points_is_small_and_shows_all_of_them(count: int) -> None:
    """Points at the same place are drawn once, and say how many they are."""
    grid = [(i % 40, i // 40 % 40) for i in range(count)]
    drawn = draw(Chart("c", "s", Axis("x"), Axis("y"), tuple(Point(x, y, "one") for x, y in grid)), "f1").svg
    assert len(re.findall('class="m', drawn)) == len(set(grid))
    assert len(drawn) < 300_000


@pytest.mark.parametrize(
    "names", [[f"a long name {i}" for i in range(8)], [f"equal beginning, choice {i}" for i in range(3)]]
)
def test_chart_of_choices_names_every_choice(names: list[str]) -> None:
    """On paper, nobody can point at a mark to read its choice."""
    chart = Chart("c", "s", Axis("kind", choices=tuple(names)), Axis("y"), (Point(0, 1, "p"), Point(1, 2, "p")))
    labels = re.findall(r"<text [^>]*>([^<]*)</text>", draw(chart, "f1").svg)
    assert sum(bool(re.search(r"\D \d$", label)) for label in set(labels)) == len(names), labels


def test_chart_of_short_choices_is_not_slanted() -> None:
    chart = Chart("c", "s", Axis("kind", choices=("a", "b")), Axis("y"), (Point(0, 1, "p"), Point(1, 2, "p")))
    assert "rotate" not in draw(chart, "f1").svg


def test_forest_of_long_labels_tells_them_apart() -> None:
    rows = tuple(Estimate(f"{'a long name of an effect ' * 3}{end}", 1.0, "1") for end in ("first", "second"))
    drawn = draw(Forest("c", "s", Axis("x"), rows), "f1").svg
    labels = re.findall(r'<text class="strong" x="12"[^>]*>([^<]*)</text>', drawn)
    assert [label.rpartition(" ")[2] for label in labels] == ["first", "second"]


def test_chart_small_series_lies_over_a_large_one() -> None:
    points = [Point(0, 1, "front", "front"), *(Point(0, 1 + i / 1000, "other", "others") for i in range(5))]
    drawn = draw(Chart("c", "s", Axis("x"), Axis("y"), tuple(points)), "f1").svg
    assert drawn.rindex("<title>front</title>") > drawn.rindex("<title>other")


@pytest.mark.parametrize(("front", "others", "drawn"), [(5, 10, 15), (5, 500, 5), (500, 10, 10), (500, 500, 0)])
def test_chart_small_series_keep_their_intervals_among_many_points(front: int, others: int, drawn: int) -> None:
    # Points of a grid of 30 columns, so that none covers another.
    points = tuple(
        Point(x, y, "p", group, low=y - 0.5, high=y + 0.5, x_low=x - 0.5, x_high=x + 0.5)
        for start, group, count in ((0, "front", front), (20, "others", others))
        for x, y in ((i % 30, start + i // 30) for i in range(count))
    )
    made = draw(Chart("c", "s", Axis("x"), Axis("y"), points), "f1")
    intervals = re.findall(r'class="i g\d" d="M([\d.]+) [\d.]+V[\d.]+M([\d.]+) [\d.]+H([\d.]+)"', made.svg)
    assert len(intervals) == drawn
    assert all(float(left) < float(x) < float(right) for x, left, right in intervals)
    assert (f"The intervals of {front + others - drawn:,} points are not drawn" in " ".join(made.notes)) == (
        drawn < front + others
    )


def test_chart_line_of_its_own_lies_over_the_points() -> None:
    points = (Point(0, 1, "p", "finished"), Point(1, 2, "p", "finished"))
    over = Chart("c", "s", Axis("x"), Axis("y"), points, (Line("best so far", ((0, 1), (1, 2)), "best so far"),))
    drawn = draw(over, "f1").svg
    assert drawn.index('class="l') > drawn.rindex('class="m')
    under = replace(over, lines=(Line("curve", ((0, 1), (1, 2)), "finished"),))
    drawn = draw(under, "f1").svg
    assert drawn.index('class="l') < drawn.index('class="m')


@pytest.mark.parametrize(
    "figure",
    [
        Chart("c", "s", Axis("x", log=True), Axis("y", log=True), (Point(0, 1, "a"), Point(-1, math.nan, "b"))),
        Chart("c", "s", Axis("x", choices=("a", "b")), Axis("y"), (Point(0, math.inf, "a"), Point(1, 5, "b"))),
        Chart("c", "s", Axis("x"), Axis("y"), (Point(1e-300, 1e300, "a", low=-1e300, high=math.inf),)),
        Chart("c", "s", Axis("x"), Axis("y"), (Point(1, 2, "a", "", math.nan, 3, 0.5, math.nan), Point(2, 3, "b"))),
        Forest("c", "s", Axis("x", log=True), (Estimate("a", 1.0, "1", -1.0, 2.0, (0.0, math.nan)),)),
        Forest("c", "s", Axis("x"), ()),
        Parallel("c", "s", (Axis("a"), Axis("b")), ()),
    ],
)
def test_figure_of_hard_numbers_is_drawn(figure: Figure) -> None:
    drawn = draw(figure, "f1").svg
    assert not re.search(r"nan|inf|None", drawn)
    numbers = [float(number) for number in re.findall(r'(?:c[xy]|x|y)="(-?[\d.]+)"', drawn)]
    assert all(-1 <= number <= 1000 for number in numbers)


@pytest.mark.parametrize(
    ("values", "log"),
    [((0.1, 0.9), False), ((1, 1000), True), ((7, 7), False), ((-3, 5), False), ((0.002, 0.003), True), ((), True)],
)
def test_scale_ticks_lie_on_the_axis_and_keep_their_order(values: tuple[float, ...], log: bool) -> None:
    scale = Scale.of(Axis("x", log), values, 0.0, 100.0)
    places = [scale.at(value) for value, _ in scale.ticks]
    assert 2 <= len(places) <= 8
    assert places == sorted(places)
    assert all(0 < place < 100 for place in places if place is not None)
    assert all(0 < (scale.at(value) or 0) < 100 for value in values)
    assert len({text for _, text in scale.ticks}) == len(places)

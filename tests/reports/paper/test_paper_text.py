"""The paper's tables: their numbers against the lines and the text of the paper, and the printed table cell by cell."""

from __future__ import annotations

import re

import pytest
from rich.console import Console

from coldtune.metrics.protocol import Protocol
from coldtune.metrics.values import Value
from coldtune.reports.paper.tables import NAMES, FilledTable, tables
from coldtune.reports.paper.text import TerminalTable, latex, markdown
from coldtune.reports.tables import MISSING

# The rows of the tables as the paper prints them.
PRINTED = {
    "1": """
        MNIST 438.59 0.287 0.287 4.69 0.718 0.154 5.10 0.757 0.142
        CIFAR-10 298.60 0.315 0.136 80.08 0.773 0.075 83.69 0.775 0.071
        CelebA 382.81 0.254 0.193 26.14 0.568 0.093 36.37 0.607 0.083""",
    "2": """
        MNIST 108.48 0.490 0.262 1.61 0.941 0.068 2.24 0.948 0.060
        CIFAR-10 40.83 0.615 0.143 8.92 0.859 0.068 9.97 0.869 0.063
        CelebA 127.85 0.663 0.155 5.73 0.917 0.043 7.74 0.922 0.039""",
    "3": """
        MNIST 368.56 0.178 0.231 4.33 0.820 0.115 4.05 0.823 0.114
        CIFAR-10 358.99 0.279 0.146 152.76 0.411 0.155 169.94 0.420 0.152
        CelebA 349.85 0.335 0.225 96.92 0.381 0.201 112.84 0.400 0.196""",
    "4": """
        CelebA 59.91 23.11 97.00 49.45
        AFHQ 25.62 20.59 93.05 54.68""",
    "5": """
        CIFAR-10 97.39 0.937 0.078 45.74 0.942 0.069
        CelebA 41.20 0.942 0.089 17.50 0.973 0.042""",
    "6": """
        MNIST 5.10 8.24 4.69
        CIFAR-10 83.69 97.89 80.08
        CelebA 36.37 299.61 26.14""",
    # 5.3: "FID scores for inpainting, super-resolution and animorphosis are 90.14, 92.91 and 48.51 respectively"
    "5.3": "CelebA 90.14 92.91 48.51",
    # A.7: "the FID of the directly reconstructed images is 257.69 for CelebA and 214.24 for AFHQ, which are far worse
    # than the scores of 49.45 and 54.68 from Table 4"
    "A.7": """
        CelebA 257.69 49.45
        AFHQ 214.24 54.68""",
}
PROTOCOL = Protocol(
    extractor="digits", extractor_sha256="ab" * 32, extractor_input="8 bit", dim=64, dataset="digits",
    dataset_fingerprint="cd" * 32, image_shape=(1, 16, 16), resize="bilinear", split="test", num_images=358,
    reference_images=358, seed=0,
)  # fmt: skip


def value(metric: str, value: float, low: float | None = None, high: float | None = None) -> Value:
    return Value(metric, value, PROTOCOL.num_images, PROTOCOL, low, high)


def filled(number: str, dataset: str = "digits", **cells: Value | str) -> FilledTable:
    """Return a table whose cell i is 10 i + 1/3 with an interval of 1 on both sides. `c0=...` replaces cell 0."""
    columns = tables()[number].columns
    made = [value(c.metric, 10 * i + 1 / 3, 10 * i - 2 / 3, 10 * i + 4 / 3) for i, c in enumerate(columns)]
    for name, cell in cells.items():
        made[int(name[1:])] = cell
    return FilledTable(number, dataset, made, [("ours", "quick/x_y: 50 % of it")])


def cells(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]


def test_paper_tables_are_complete() -> None:
    assert list(tables()) == list(PRINTED)


@pytest.mark.parametrize("number", PRINTED)
def test_paper_table_numbers_equal_the_printed_rows(number: str) -> None:
    table = tables()[number]
    decimals = {"fid": 2, "ssim": 3, "rmse": 3}
    lines = [
        " ".join([NAMES[name], *(f"{x:.{decimals[c.metric]}f}" for x, c in zip(row, table.columns, strict=True))])
        for name, row in table.paper.items()
    ]
    assert lines == [line.strip() for line in PRINTED[number].strip().splitlines()]


def test_paper_tables_agree_with_each_other_and_with_the_text() -> None:
    one, four, six, a7 = (tables()[number].paper for number in ("1", "4", "6", "A.7"))
    for name, row in six.items():
        assert (row[0], row[2]) == (one[name][6], one[name][3]), "table 6 repeats table 1's direct and sampled FID"
    for name, row in a7.items():
        assert row[1] == four[name][3], "A.7 repeats table 4's broken symmetry"
    for row in one.values():  # 4.1: FID improves by sampling, RMSE gets worse
        assert row[3] < row[6]
        assert row[5] > row[8]


@pytest.mark.parametrize("number", [number for number in PRINTED if number != "3"])
def test_paper_table_claims_hold_in_its_numbers(number: str) -> None:
    table = tables()[number]
    assert table.claims or number == "5.3"
    for better, worse in table.claims:
        assert all(row[better] < row[worse] for row in table.paper.values())


def test_paper_table_3_claim_fails_for_mnist() -> None:
    (claim,) = tables()["3"].claims
    assert {name: row[claim[0]] < row[claim[1]] for name, row in tables()["3"].paper.items()} == {
        "mnist": False, "cifar10": True, "celeba": True,
    }  # fmt: skip


@pytest.mark.parametrize("number", PRINTED)
def test_markdown_fills_every_cell(number: str) -> None:
    made = filled(number)
    head, rule, ours, *papers = cells(markdown(made))
    assert len(head) == len(rule) == len(ours) == 1 + len(made.table.columns)
    assert head[0] == "Dataset"
    assert len(set(head)) == len(head)
    for i, (column, cell) in enumerate(zip(made.table.columns, ours[1:], strict=True)):
        places = 2 if column.metric == "fid" else 3
        bounds = (10 * i - 2 / 3, 10 * i + 4 / 3)
        assert cell == f"{10 * i + 1 / 3:.{places}f} [{bounds[0]:.{places}f}, {bounds[1]:.{places}f}]"
    assert [" ".join(row).replace(", paper", "") for row in papers] == [
        line.strip() for line in PRINTED[number].strip().splitlines()
    ], "for a dataset that is not in the paper, all rows of the paper are below"


def test_markdown_dataset_of_the_paper_is_above_only_its_row() -> None:
    rows = cells(markdown(filled("6", "mnist")))[2:]
    assert [row[0] for row in rows] == ["MNIST, ours", "MNIST, paper"]
    assert rows[1][1:] == ["5.10", "8.24", "4.69"]


def test_markdown_empty_cell_has_a_reason_below() -> None:
    text = markdown(filled("5.3", c1="trial 1 failed: loss is NaN", c2="there is no preset"))
    assert cells(text)[2][1:] == ["0.33 [-0.67, 1.33]", MISSING, MISSING]
    assert "- empty: Super-resolution: trial 1 failed: loss is NaN" in text
    assert "- empty: Animorphosis: there is no preset" in text
    assert "- empty: all: not measured yet" in markdown(filled("A.7", c0="not measured yet", c1="not measured yet"))


def test_markdown_foot_explains_protocol_and_source() -> None:
    text = markdown(filled("1"))
    assert f"- protocol: {PROTOCOL.describe()}" in text
    assert "section 4.1, table 1" in text
    assert "FIDs of other features, another N or other images have another scale" in text
    assert "below 4 d" not in text
    few = PROTOCOL.model_copy(update={"num_images": 200})
    scarce = FilledTable("6", "digits", [Value("fid", 1.0, 200, few)] * 3)
    assert "N = 200 is below 4 d = 256" in markdown(scarce)


def test_filled_table_different_protocols_are_refused() -> None:
    other = PROTOCOL.model_copy(update={"num_images": 100})
    with pytest.raises(ValueError, match=r"num_images \(358 and 100\)"):
        filled("6", c2=Value("fid", 1.0, 100, other))


def test_markdown_small_value_keeps_two_digits() -> None:
    made = filled("1", c3=value("fid", 0.00456, 0.001, 0.008), c6=value("fid", 2.0))
    row = cells(markdown(made))[2]
    assert row[4] == "0.0046 [0.0010, 0.0080]"
    assert row[7] == "2.00"


@pytest.mark.parametrize("number", PRINTED)
@pytest.mark.parametrize("width", [80, 100, 160])
def test_terminal_table_any_width_cuts_no_number(number: str, width: int) -> None:
    made = filled(number)
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(TerminalTable(made))
    shown = capture.get()
    assert all(len(line) <= width for line in shown.splitlines())
    assert "…" not in shown
    words = shown.replace("[", " [").split()
    for row in cells(markdown(made))[2:]:
        for part in " ".join(row[1:]).split():
            assert part in words


@pytest.mark.parametrize("number", PRINTED)
def test_latex_is_well_formed(number: str) -> None:
    made = filled(number, c0="failed: 100 % of a_b & c#d ~ {x} ^ \\y $5 < 6|7 > 8")
    text = latex(made)
    assert text.count(r"\begin{") == text.count(r"\end{") == len(re.findall(r"\\begin\{(\w+)\}", text))
    opened: list[str] = []
    for verb, name in re.findall(r"\\(begin|end)\{(\w+)\}", text):
        opened.append(name) if verb == "begin" else opened.remove(opened[-1] if opened[-1] == name else "nothing")
    assert opened == []
    plain = re.sub(r"\\[{}]", "", text)
    assert plain.count("{") == plain.count("}")
    (spec,) = re.findall(r"\\begin\{tabular\}\{(\w+)\}", text)
    assert len(spec) == 1 + len(made.table.columns)
    rows = re.findall(r"^(.*) \\\\$", text, re.MULTILINE)
    for row in rows:
        spans = [int(n) for n in re.findall(r"\\multicolumn\{(\d+)\}", row)]
        assert len(re.findall(r"(?<!\\)&", row)) + 1 + sum(spans) - len(spans) == len(spec), row
        assert not row.lstrip().startswith(("[", "*")), "LaTeX would read it as an argument of the line before"
    assert r"100 \% of a\_b \& c\#d \textasciitilde{} \{x\} \textasciicircum{} \textbackslash{}y \$5" in text
    assert r"\$5 \textless{} 6\textbar{}7 \textgreater{} 8" in text
    assert [rule in text for rule in (r"\toprule", r"\midrule", r"\bottomrule")] == [True] * 3
    body = text[text.index(r"\begin{tabular}") :]
    for line in PRINTED[number].strip().splitlines():
        name, *figures = line.split()
        assert f"{name}, paper & {' & '.join(figures)} \\\\" in body


def test_latex_minus_signs_differ_from_hyphens() -> None:
    made = FilledTable("A.7", "digits", ["x"] * 2, [("measured", "FID -2.8, 95 % CI [-4.6, -1.0], n - 1, cifar-10")])
    assert r"FID $-$2.8, 95 \% CI [$-$4.6, $-$1.0], n - 1, cifar-10\par" in latex(made)


def test_latex_groups_span_their_columns() -> None:
    text = latex(filled("4"))
    assert r"\multicolumn{2}{c}{Hot Diffusion} & \multicolumn{2}{c}{Cold Diffusion}" in text
    assert r"\cmidrule(lr){2-3} \cmidrule(lr){4-5}" in text
    assert "multicolumn" not in latex(filled("6"))

"""The table of an evaluation: rounding, columns, refused protocols, and the JSON record."""

from __future__ import annotations

import io
import json
import math

import pytest
from rich.console import Console

from coldtune.metrics import Judgement, Protocol, Value
from coldtune.reports.evaluation import JudgedSet, evaluation_markdown, evaluation_record, evaluation_table
from coldtune.reports.tables import MISSING

PROTOCOL = Protocol(
    extractor="digits", extractor_sha256="ab" * 32, extractor_input="8 bit", dim=64, dataset="digits",
    dataset_fingerprint="cd" * 32, image_shape=(1, 16, 16), resize="bilinear", split="validation", num_images=300,
    reference_images=359, seed=0,
)  # fmt: skip


def judged(name: str, protocol: Protocol = PROTOCOL, **values: tuple[float, float | None, float | None]) -> JudgedSet:
    made = {metric: Value(metric, value, 300, protocol, low, high) for metric, (value, low, high) in values.items()}
    return JudgedSet(name, name, Judgement(protocol, made))


def cell(*value: float | None, metric: str = "fid") -> str:
    return str(evaluation_table([judged("a", **{metric: value})]).columns[metric][0])


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ((0.5072, 0.4369, 0.5774), "0.51 [0.44, 0.58]"),
        ((147.118, 144.969, 149.266), "147.1 [145.0, 149.3]"),
        ((12345.6, 12000.0, 12700.0), "12,346 [12,000, 12,700]"),
        ((-0.0239888, -0.0376127, -0.0103649), "-0.024 [-0.038, -0.010]"),
        ((0.0000123, 0.0000101, 0.0000145), "0.0000123 [0.0000101, 0.0000145]"),
        ((-0.0004, -0.03, 0.03), "0.000 [-0.030, 0.030]"),
        ((0.91184, None, None), "0.912"),
        ((0.0, 0.0, 0.0), "0"),
        ((math.inf, math.inf, math.inf), "∞"),
    ],
)
def test_evaluation_table_cell_has_the_digits_that_its_interval_allows(value, shown):
    assert cell(*value) == shown


def test_evaluation_table_metric_of_no_set_has_no_column():
    table = evaluation_table([judged("a", fid=(1.0, 0.5, 1.5)), judged("b", fid=(1.0, 0.5, 1.5), kid=(0.1, 0.0, 0.2))])
    assert list(table.columns) == ["fid", "kid"]
    assert str(table.columns["kid"][0]) == MISSING


@pytest.mark.parametrize("width", [40, 80])
def test_evaluation_table_keeps_the_name_of_a_run_whole_if_it_fits(width: int) -> None:
    name = "R" * (width - 30)
    table = evaluation_table([judged(name, fid=(1.0, 0.5, 1.5), kid=(0.1, 0.05, 0.2))])
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(table)
    text = console.export_text()
    assert name in text
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width


def test_evaluation_markdown_arrows_show_better_direction():
    head = evaluation_markdown([judged("a", fid=(1.0, 0.5, 1.5), ssim=(0.9, 0.8, 1.0), recall=(0.9, 0.8, 1.0))])
    assert "| FID ↓ | recall ↑ | SSIM ↑ |" in head


def test_evaluation_table_different_protocols_are_refused():
    other = PROTOCOL.model_copy(update={"split": "test"})
    with pytest.raises(ValueError, match=r"split \('validation' and 'test'\)"):
        evaluation_table([judged("a", fid=(1.0, 0.5, 1.5)), judged("b", other, fid=(1.0, 0.5, 1.5))])


def test_evaluation_record_infinite_value_is_text():
    record = evaluation_record([judged("a", psnr=(math.inf, 30.0, math.inf), fid=(1.0, None, None))])
    json.dumps(record, allow_nan=False)
    assert record["sets"]["a"]["metrics"]["psnr"] == {"value": "inf", "low": 30.0, "high": "inf", "n": 300}
    assert record["sets"]["a"]["metrics"]["fid"]["low"] is None
    assert record["protocol_key"] == PROTOCOL.key

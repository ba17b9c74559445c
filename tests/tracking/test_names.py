"""The names of metrics in MLflow, whose chart view makes a section of each prefix."""

from __future__ import annotations

import pytest

from coldtune.tracking import chosen_metrics, mlflow_name, trial_metrics

MEASURED = {
    f"{metric}{suffix}": float(i)
    for i, suffix in enumerate(("", "_direct", "_naive", "_degraded", "_low", "_high"))
    for metric in ("kid", "fid", "ssim", "rmse", "recall")
}


@pytest.mark.parametrize(
    ("metric", "name"),
    [
        ("fid", "sampled/fid"),
        ("fid_infinity", "sampled/fid_infinity"),
        ("fid_infinity_direct", "direct/fid_infinity"),
        ("fid_naive", "sampled/naive/fid"),
        ("ssim_degraded", "x_T/ssim"),
        ("fid_low", "sampled/interval/fid_low"),
        ("nfe", "sampled/nfe"),
    ],
)
def test_mlflow_name_has_the_section_of_its_images(metric: str, name: str) -> None:
    assert mlflow_name(metric) == name


def test_chosen_metrics_are_all_of_the_own_sampler_and_three_of_the_others() -> None:
    own, others = ("kid", "fid", "ssim", "rmse", "recall"), ("fid", "ssim", "rmse")
    expected = {*own, *(f"{name}_{kind}" for name in others for kind in ("direct", "naive", "degraded"))}
    assert chosen_metrics(MEASURED).keys() == expected | {"fid_low", "fid_high"}


def test_chosen_metrics_objectives_are_shown_with_their_intervals() -> None:
    chosen = chosen_metrics(MEASURED, ["recall_naive", "kid"])
    assert list(chosen)[:2] == ["recall_naive", "kid"]
    assert {"kid_low", "kid_high", "fid_low", "recall_naive"} <= chosen.keys()


def test_trial_metrics_have_unique_names() -> None:
    assert len(trial_metrics(MEASURED, MEASURED)) == len(MEASURED)

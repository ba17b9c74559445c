"""The objective of a search, which takes its metrics from the registry."""

from __future__ import annotations

from dataclasses import replace

import pytest

from coldtune.config import parse
from coldtune.metrics import DISTANCES, IMAGE_SCORES
from coldtune.studies.search.objective import Objective


def test_objective_registered_metric_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DISTANCES, "coverage", replace(DISTANCES["recall"]))
    chosen = parse(Objective, {"metric": "coverage", "direction": "maximize"})
    assert chosen.model_dump(mode="json") == {"metric": "coverage", "direction": "maximize"}


def test_objective_unknown_metric_names_all_allowed_metrics() -> None:
    with pytest.raises(ValueError, match=r"objective\.metric = 'lpips': .*allowed: ") as raised:
        parse(Objective, {"metric": "lpips"}, "objective")
    assert str(raised.value).partition("allowed: ")[2].split(", ") == [*DISTANCES, *IMAGE_SCORES, "nfe"]


@pytest.mark.parametrize(("metric", "better"), [("fid", "minimize"), ("recall", "maximize"), ("nfe", "minimize")])
def test_objective_wrong_direction_is_refused(metric: str, better: str) -> None:
    (worse,) = {"minimize", "maximize"} - {better}
    parse(Objective, {"metric": metric, "direction": better})
    with pytest.raises(ValueError, match=f"direction = '{worse}': {metric} is better the other way; allowed: {better}"):
        parse(Objective, {"metric": metric, "direction": worse})


@pytest.mark.parametrize(("metric", "better"), [("fid", "minimize"), ("ssim", "maximize"), ("recall", "maximize")])
def test_objective_without_a_direction_follows_its_metric(metric: str, better: str) -> None:
    assert parse(Objective, {"metric": metric}).direction == better

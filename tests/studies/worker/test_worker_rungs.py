"""A trial at its rungs, without a cluster: its reports there, and its records if it ends there."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from coldtune import presets
from coldtune.data import Dataset, prepared
from coldtune.metrics import build_extractor, resolve
from coldtune.stages.rungs import metric_at_rung
from coldtune.stages.trial import TrialConfig, parse_trial
from coldtune.store.store import Store
from coldtune.studies.search.paired_test import judgements_of
from coldtune.studies.search.pruner import _judgement_key
from coldtune.studies.storage.outcome import Rung, TrialOutcome
from coldtune.studies.worker.job import RUNG, TrialJob
from coldtune.studies.worker.timeout import TrialTimeout
from coldtune.studies.worker.trial import _run
from coldtune.tracking.spool import Spool, run_file


def trial() -> TrialConfig:
    tree = presets.load("digits-quick")
    tree["training"] |= {"steps": 6, "batch_size": 16, "checkpoint_every": 2, "validate_every": 0, "report_every": 1}
    tree["degradation"]["steps"] = 4
    tree["protocol"]["num_images"] = 260
    tree["rungs"] = {"steps": [2, 4], "num_images": 64}
    return parse_trial(tree)


@pytest.fixture
def job(digits_home: Path, tmp_path: Path) -> TrialJob:
    dataset = Dataset.open(prepared(digits_home, "digits")[0])
    return TrialJob(
        study="s", number=0, again=False, trial=trial(), leftover=None, home=str(tmp_path), source_path=None,
        dataset_path=str(dataset.path), spool=str(tmp_path / "spool"),
        environments=str(tmp_path / "environments"), tags={}, workers=1, cpus=1, gpus=0,
    )  # fmt: skip


def flattened(report: Mapping[str, Any]) -> dict[str, Any]:
    """Flatten a report as Tune does before it calls the scheduler."""
    from ray.tune.utils import flatten_dict

    return dict(flatten_dict(dict(report)))


def stopped_at(job: TrialJob, step: int) -> Rung:
    """Run the trial until it reports the rung at `step`, end it there as Tune does, and return the rung."""
    rungs: list[Rung] = []

    def report(result: Mapping[str, Any]) -> None:
        if result["stage"] == RUNG:
            rungs.append(Rung.from_json(flattened(result)["rung"]))
            if result["step"] == step:
                sys.exit(0)

    deadline = unlimited()
    with pytest.raises(SystemExit):
        _run(job, report, deadline)
    spent = deadline.ran()
    time.sleep(0.01)
    assert deadline.ran() == spent, "the clock of a trial that ended at a rung stands still"
    return rungs[-1]


def unlimited() -> TrialTimeout:
    return TrialTimeout(None, lambda reason: None)


def logged(job: TrialJob, metric: str) -> list[int]:
    """Return the steps at which a metric was logged to the trial's spool."""
    records, _ = Spool(Path(job.spool), run_file(job.number)).read()
    return [r["step"] for r, _ in records if r["op"] == "metrics" and metric in r["values"]]


def test_trial_pruned_at_a_rung_has_reported_everything(job: TrialJob) -> None:
    rung = stopped_at(job, 4)
    assert (rung.step, rung.steps, rung.metric) == (4, 6, "kid")
    assert logged(job, "train/loss") == [1, 2, 3, 4]
    assert logged(job, "train/rung_kid") == [2, 4]
    assert rung.effort.seconds >= rung.training_seconds > 0
    assert rung.effort.trained == pytest.approx(rung.training_seconds)
    assert str(rung) == f"at step 4 of 6: KID {rung.values['kid']:.4g}"
    # Pruning by fronts and by image-by-image tests needs these values.
    assert {metric_at_rung(metric, "kid") for metric in ("fid", "ssim", "nfe", "recall")} <= rung.values.keys()
    assert rung.values["nfe"] == 4
    assert "fid" not in rung.values, "at few images FID prefers the over-smoothed"
    judgement = judgements_of(Store(Path(job.home) / "store"))(_judgement_key(rung.stages, 4) or "")
    assert judgement is not None
    assert judgement.values["kid"].value == rung.values["kid"]
    assert len(judgement.influences["kid"]) == 64


def test_trial_at_a_rung_again_reports_the_same(job: TrialJob) -> None:
    """The driver died before it stored the rung. Nothing is trained or logged twice."""
    first = stopped_at(job, 2)
    again = stopped_at(job.model_copy(update={"again": True}), 2)
    assert again.values == first.values
    assert all(found for _, _, found, _ in again.stages)
    assert again.training_seconds > 0, "as its checkpoint remembers"
    assert again.effort.trained == again.training_seconds, "its own work, taken up again"
    assert logged(job, "train/loss") == [1, 2]
    assert logged(job, "train/rung_kid") == [2]


def test_trial_promoted_resumes_from_the_rung(job: TrialJob, capsys: pytest.CaptureFixture[str]) -> None:
    stopped_at(job, 4)
    promoted = job.model_copy(update={"number": 1, "tags": {"promoted_from": "0"}})
    trained: list[int] = []
    outcome = _run(promoted, lambda r: trained.append(r["step"]) if r.get("stage") == "train" else None, unlimited())
    assert set(trained) == {5, 6}, "only what lies beyond the rung is trained"
    assert logged(promoted, "train/loss") == [1, 2, 3, 4, 5, 6], "its run shows the whole curve"
    assert list(outcome.rungs) == [2, 4]
    assert TrialOutcome.from_json(outcome.to_json()) == outcome, "the driver reads the outcome as it was"


def test_trial_with_another_judge_trains_nothing(job: TrialJob) -> None:
    """The node has other weights or other code of the user's judge than the driver."""
    digits = Dataset.open(job.dataset_path)
    protocol = resolve(job.trial.protocol, build_extractor("digits"), digits, job.trial.task)
    asked = job.model_copy(update={"protocol": protocol.model_copy(update={"extractor_sha256": "12" * 32})})
    with pytest.raises(ValueError, match=rf"they differ in extractor_sha256 \('{'12' * 32}' and"):
        _run(asked, lambda _: None, unlimited())
    assert not (Path(job.home) / "store" / "train").exists()
    stopped_at(job.model_copy(update={"protocol": protocol}), 2)


@pytest.mark.slow
def test_trial_with_further_draws_reports_values_of_every_seed(job: TrialJob) -> None:
    """The blur is deterministic, so the other seeds have the same images and values. Rungs have no further draws."""
    protocol = job.trial.protocol.model_copy(update={"num_images": None, "draws": 3})
    drawn = job.model_copy(update={"trial": job.trial.model_copy(update={"protocol": protocol})})
    outcome = _run(drawn, lambda _: None, unlimited())
    assert {seed: values["fid"] for seed, values in outcome.draws.items()} == dict.fromkeys(
        (1, 2), outcome.metrics["fid"]
    )
    assert TrialOutcome.from_json(outcome.to_json()) == outcome
    sampled = [stage.stage for stage in outcome.stages if stage.stage.startswith("sample")]
    assert sampled[-2:] == ["sample_seed_1", "sample_seed_2"]
    assert not any("_2_seed" in name or "_4_seed" in name for name in sampled)

"""A sweep on this machine, started as a newcomer does: its output, its files, and its pages while it runs."""

from __future__ import annotations

import ipaddress
import json
import math
import re
from pathlib import Path

import pytest
from e2e_lab import SETTINGS, Runs, Unbroken, trainings_of
from optuna.trial import TrialState
from PIL import Image
from safetensors import safe_open

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(3600)]
REPORTS = list(range(10, SETTINGS["training.steps"] + 1, 10))


def test_sweep_end_prints_table_and_next_commands(unbroken: Unbroken) -> None:
    assert unbroken.code == 0, unbroken.text
    assert [trial.state for trial in unbroken.study.trials] == [TrialState.COMPLETE] * 3
    for trial in unbroken.study.trials:
        (row,) = re.findall(rf"^ +★?{trial.number} +finished .*$", unbroken.text, re.MULTILINE)
        assert f"{trial.value:.2f}" in row
    best = unbroken.study.best_trial
    assert f"★{best.number} " in unbroken.text
    assert f"Trial {best.number}, measured once on test: FID" in unbroken.text
    assert f"sqlite:///{unbroken.home}/mlflow.db" in unbroken.text
    assert f"coldtune study show {unbroken.study.study_name}" in unbroken.text
    assert "--trials 11" in unbroken.text, "the command that extends the study"


def test_mlflow_has_parent_run_and_child_run_per_trial(unbroken: Unbroken) -> None:
    runs = Runs(unbroken.home)
    (parent,) = runs.parents
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics["best/fid"] == unbroken.study.best_value
    assert parent.data.metrics["study/trials_ended"] == 3
    assert math.isfinite(parent.data.metrics["test/fid"])
    assert parent.data.tags["best_trial"] == str(unbroken.study.best_trial.number)
    saved = {trial.number: trial.user_attrs["saved"] for trial in unbroken.study.trials}
    assert parent.data.metrics["study/seconds_saved"] == pytest.approx(sum(saved.values()))
    assert sorted(runs.trials) == [0, 1, 2]
    for trial in unbroken.study.trials:
        run = runs.trials[trial.number]
        assert run.info.status == "FINISHED"
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.data.tags["coldtune.study"] == unbroken.study.study_name
        assert {"protocol", "job", "mlflow.source.git.commit", "mlflow.loggedImages"} <= run.data.tags.keys()
        longest = max(len(text) for key, text in run.data.tags.items() if not key.startswith(("mlflow.", "coldtune.")))
        assert longest < 64, "hashes are in record.json"
        assert run.data.metrics["seconds/saved"] == saved[trial.number]
        assert re.match(rf"{trial.number}: .*T {trial.params['T']}\b", run.info.run_name), "the name says what varies"
        verdict, reuse, judged = run.data.tags["mlflow.note.content"].split("\n\n")
        said = re.match(r"\*\*FID ([0-9.]+) \[", verdict)
        assert said is not None
        assert float(said[1]) == pytest.approx(trial.value, rel=0.05), "the digits follow from the interval"
        assert ("It has the best " in verdict) or (trial.number != unbroken.study.best_trial.number)
        assert reuse.startswith("training ")
        assert judged.startswith("Judged by digits features")
        datasets = {each.dataset.name: each.dataset.digest for each in run.inputs.dataset_inputs}
        assert datasets.keys() == {"digits", "digits/validation"}
        (digest,) = set(datasets.values())
        assert trial.user_attrs["protocol"]["dataset_fingerprint"].startswith(digest)
        for name, value in trial.params.items():
            shown = run.data.params[name]
            assert shown == str(value) or float(shown) == pytest.approx(value), f"{name} of trial {trial.number}"
        measured = trial.user_attrs["metrics"]
        for name in ("fid", "kid", "mind", "ssim", "rmse", "precision", "nfe"):
            assert run.data.metrics[f"sampled/{name}"] == measured[name], f"{name} of trial {trial.number}"
        for section, suffix in (("direct", "direct"), ("sampled/naive", "naive"), ("x_T", "degraded")):
            assert run.data.metrics[f"{section}/fid"] == measured[f"fid_{suffix}"]
        assert run.data.metrics["sampled/fid"] == trial.value
        assert (
            run.data.metrics["sampled/interval/fid_low"] < trial.value < run.data.metrics["sampled/interval/fid_high"]
        )
        assert run.data.metrics["seconds/total"] >= run.data.metrics["seconds/train"]
        assert runs.steps(trial.number, "sampled/fid") == [0], "a value without a curve, which MLflow draws as a bar"
        assert runs.steps(trial.number, "train/loss") == REPORTS
        assert runs.steps(trial.number, "train/val_loss") == [120, 240]


def test_mlflow_run_of_trial_keeps_config_images_and_weights(unbroken: Unbroken, tmp_path: Path) -> None:
    runs = Runs(unbroken.home)
    for number, run in runs.trials.items():
        images = {path for path in runs.artifacts(number) if path.startswith("images/")}
        keys = {path.removeprefix("images/").partition("+timestamp+")[0] for path in images}
        assert keys == {"samples~sampled+step+0", "samples~path+step+0"}
        assert len(images) == 4, "each whole and small"
        files = {"config.yaml", "record.json", "grid.png", "strip.png", "weights/ema.safetensors"}
        assert runs.artifacts(number) - images == files
        record = json.loads(Path(runs.client.download_artifacts(run.info.run_id, "record.json")).read_text())
        stages = [[each["stage"], each["key"], each["found"]] for each in record["stages"]]
        assert stages == [each[:3] for each in unbroken.study.trials[number].user_attrs["stages"]]
        folder = Path(runs.client.download_artifacts(run.info.run_id, "", str(tmp_path)))
        with Image.open(folder / "grid.png") as grid:
            grid.verify()
        with safe_open(folder / "weights" / "ema.safetensors", "pt") as weights:
            assert all(weights.get_tensor(name).isfinite().all() for name in weights.keys())  # noqa: SIM118


def test_workers_use_the_drivers_environment(unbroken: Unbroken) -> None:
    assert unbroken.workers_torch, "a worker has loaded torch"
    assert unbroken.workers_torch == unbroken.drivers_torch


def test_all_processes_listen_on_loopback_only(unbroken: Unbroken) -> None:
    assert sum(map(len, unbroken.listening.values())) >= 5, "Ray's head, raylet, dashboard, agents and workers"
    for process, addresses in unbroken.listening.items():
        for address in map(ipaddress.ip_address, addresses):
            mapped = getattr(address, "ipv4_mapped", None)
            assert (mapped or address).is_loopback, f"{process} listens on {address}"


def test_ray_dashboard_shows_study_and_trials_by_name(unbroken: Unbroken) -> None:
    (job,) = unbroken.jobs
    assert job["metadata"]["job_name"] == job["metadata"]["study"] == unbroken.study.study_name
    assert {actor["class_name"] for actor in unbroken.actors} == {"coldtune_trial"}
    started = [actor for actor in unbroken.actors if actor["state"] == "ALIVE"]
    assert {actor["repr_name"] for actor in started} == {"coldtune_trial"}


def test_trial_log_names_each_trial_at_start_and_end(unbroken: Unbroken) -> None:
    begins = f"=== study {unbroken.study.study_name}, trial "
    assert any(line.startswith(begins) for log in unbroken.early_logs for line in log[:1]), "while the sweep runs"
    logged = []
    for log in unbroken.logs:
        lines = [line for line in log if line.startswith("===")]
        assert log[0] == lines[0], "no line before the first trial"
        for first, last in zip(lines[::2], lines[1::2], strict=True):
            assert last == f"{first}: complete"
            logged.append(int(first.removeprefix(begins)))
    assert sorted(logged) == [0, 1, 2]


def test_prometheus_shows_study_and_trials_while_sweep_runs(unbroken: Unbroken) -> None:
    def values(name: str, *tags: str) -> list[float]:
        wanted = (f'study="{unbroken.study.study_name}"', *tags)
        lines = [x for x in unbroken.prometheus if x.startswith(f"ray_coldtune_{name}{{")]
        return [float(line.rpartition(" ")[2]) for line in lines if all(tag in line for tag in wanted)]

    (running,) = values("trials", 'state="running"')
    assert running in (1.0, 2.0, 3.0), "a trial runs on each CPU, and at most three trials exist"
    assert values("trials", 'state="failed"') == [0.0]
    trainings = trainings_of([line for line in unbroken.prometheus if f'study="{unbroken.study.study_name}"' in line])
    assert trainings.keys() & {"0", "1", "2"} == trainings.keys() != set()
    for shown in trainings.values():
        assert 0 < shown["training_loss"] < 1
        assert shown["training_step"] in REPORTS
        assert shown["images_per_second"] > 0

"""A study that keeps its store in a bucket is killed while it trains, resumed from the bucket, and evaluated."""

from __future__ import annotations

import json
import re
import sys

import pytest
from e2e_lab import SETTINGS, Lab, flags, study_of
from optuna.trial import TrialState

import servers
from coldtune.store.location import StoreLocation
from coldtune.store.store import Store

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(3600)]

LAST = SETTINGS["training.steps"]


def test_study_in_bucket_killed_is_resumed_from_bucket(
    lab: Lab, s3: servers.S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.env |= s3.environment
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    bucket, home = s3.bucket(), lab.path / "home"
    url = s3.url(bucket, "cold/store")
    files = Store(StoreLocation(url, str(lab.path / "observer"))).files

    def checkpoints() -> list[list[str]]:
        """Return the training key and step of each checkpoint."""
        return [name.split("/")[:2] for name in files.tree("train") or {} if name.endswith("/manifest.json")]

    def steps() -> list[int]:
        return [int(step) for _, step in checkpoints()]

    arguments = ["--trials", "2", "--store", url, *flags()]
    run = lab.sweep(home, *arguments)
    run.until("a checkpoint in the bucket", lambda: any(0 < step < LAST for step in steps()))
    run.process.kill()
    run.wait()
    lab.wait_until_empty()
    trained = {key for key, step in checkpoints() if int(step) == LAST}

    run = lab.sweep(home, *arguments, "--resume")
    assert run.wait() == 0, run.text
    lab.wait_until_empty()
    # The line is wrapped at the terminal's width, which depends on the length of the home's path.
    assert f"finished work to s3://{bucket}/cold/store" in " ".join(run.text.split())
    study = study_of(home)
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 2
    assert steps().count(LAST) == 2
    assert not (home / "store").exists()
    recorded = study.trials[0].user_attrs
    assert recorded["checkpoint"].startswith(f"s3://{bucket}/cold/store/train/")
    assert recorded["images"]["sampled"].startswith(f"s3://{bucket}/cold/store/sample/")
    training = {stage: found for stage, _, found, _ in recorded["stages"]}
    assert training["train"] is (recorded["checkpoint"].split("/")[-2] in trained)

    # Other processes know only the home, and find restorers and images in the bucket.
    def coldtune(*words: str) -> str:
        done = lab.start([sys.executable, "-m", "coldtune", *words, "--home", str(home)])
        assert done.wait() == 0, done.text
        return done.text

    judged = lab.path / "judged.json"
    coldtune("evaluate", f"{study.study_name}/0", f"{study.study_name}/1", "--output", str(judged))
    values = [e["sets"]["sampled"]["metrics"]["fid"]["value"] for e in json.loads(judged.read_text())["evaluations"]]
    assert values == [trial.values[0] for trial in study.trials]
    shown = coldtune("study", "show", study.study_name)
    assert re.search(rf"its restorer +s3://{bucket}/cold/store/train/\w+/00000{LAST}", shown)
    assert f"s3://{bucket}/cold/store" in coldtune("store", "ls")
    coldtune("store", "gc", "--older", "0", "--yes")
    assert sorted(steps()) == [LAST, LAST], "gc removes intermediate checkpoints and keeps final ones"

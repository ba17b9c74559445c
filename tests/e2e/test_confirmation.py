"""A search whose best settings are confirmed: killed in the confirmation, resumed, and extended."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from e2e_lab import Lab
from mlflow import MlflowClient

from coldtune.studies.spec.folder import StudyFolder, studies
from coldtune.studies.storage.record import StudyRecord
from coldtune.studies.trials.reading import read_study
from coldtune.tracking import NOTE

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(3600), pytest.mark.slow]
SETTINGS = ["training.steps=4", "training.batch_size=8", "training.validate_every=0", "protocol.num_images=260"]
SEARCH = """
base: digits-quick
vary:
  degradation.steps: {low: 4, high: 8, step: 4}
  training.loss: {choices: [l1, l2]}
first: [{degradation.steps: 4, training.loss: l2}]
"""


def confirmations(home: Path) -> list[StudyFolder]:
    return [folder for folder in studies(home) if "-confirm-" in folder.name]


def starts(text: str) -> list[str]:
    return re.findall(r"^trial +(\S+) starts", text, re.MULTILINE)


def test_confirmation_follows_the_search_and_repeats_nothing(lab: Lab) -> None:
    home, space = lab.path / "home", lab.path / "tiny.yaml"
    space.write_text(SEARCH)
    settings = ["--set", *SETTINGS, "degradation.steps=8"]
    command = [
        sys.executable, "-m", "coldtune", "study", "run", str(space), "--home", str(home), "--trials", "2",
        "--confirm", "3", *settings,
    ]  # fmt: skip
    run = lab.start(command)
    run.until(
        "a training of the confirmation has ended", lambda: re.search(r"^trial +\S+ +FID.*variant", run.text, re.M)
    )
    run.process.kill()
    run.wait()
    lab.wait_until_empty()
    (folder,) = confirmations(home)
    before = {trial.number for trial in read_study(folder).trials() if trial.state.is_finished()}
    assert before

    again = lab.start(command)
    assert again.wait() == 0, again.text
    lab.wait_until_empty()
    search, confirmation = again.text.split(f"\n{folder.name}\n")
    assert "2 trials" in search
    assert not starts(search), "the search was complete"
    assert len(starts(confirmation)) < 6, "trainings that had ended are not repeated"
    assert "over trainings and images, 3 trainings each" in " ".join(confirmation.split())
    assert "On test, with trainings that chose nothing, it has FID" in " ".join(confirmation.split())
    reader = read_study(folder)
    configs = [reader.config(trial) for trial in reader.trials()]
    assert {config.protocol.split for config in configs} == {"test"}
    assert {config.training.seed for config in configs} == {1000, 1001, 1002}
    (searched,) = [each for each in studies(home) if each.name != folder.name]
    assert StudyRecord.of(read_study(searched).study).test is None, "the confirmation replaces the measurement on test"

    client = MlflowClient(f"sqlite:///{home}/mlflow.db")
    own = f"tags.`coldtune.study` = '{searched.name}' and tags.`coldtune.kind` = 'study'"
    (recorded,) = client.search_runs([each.experiment_id for each in client.search_experiments()], own)
    note = recorded.data.tags[NOTE]
    assert note.startswith(f"**The search {searched.name} chose trial"), "the run of the search has its verdict"
    assert "over trainings and images, 3 trainings each" in note

    third = lab.start(command)
    assert third.wait() == 0, third.text
    assert not starts(third.text)

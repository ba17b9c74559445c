"""The facts that are read from a stored study, and the command that prints its importance."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from made_up_facts import SPACE

from coldtune import cli
from coldtune.config import plain
from coldtune.data import Dataset, prepared
from coldtune.metrics import build_extractor, resolve
from coldtune.stages.trial import parse_trial
from coldtune.studies.insight.facts import observe
from coldtune.studies.insight.study_importance import importance_of
from coldtune.studies.space.space import Space
from coldtune.studies.spec.build import build_spec
from coldtune.studies.spec.folder import StudyFolder
from coldtune.studies.storage.backends import load_started_study, open_storage
from coldtune.studies.storage.outcome import TrialOutcome
from coldtune.studies.storage.record import write_study
from coldtune.studies.trials.ledger import Ledger, open_ledger
from coldtune.studies.trials.reading import read_study

REPLICATES = 2


@pytest.fixture
def home(digits_home: Path, tmp_path: Path) -> Path:
    """A home with the study `made`: 21 settings of two trainings each. One training failed."""
    shutil.copytree(digits_home / "data", tmp_path / "data")
    (tmp_path / "space.yaml").write_text(f"{SPACE}search: {{algorithm: random}}\n")
    dataset = Dataset.open(prepared(tmp_path, "digits")[0])
    spec = build_spec("made", tmp_path / "space.yaml", settings=["rungs.steps=[100]", "sampler.num_steps=10"])
    space, trial = Space(spec.space, spec.base, dataset.image_shape), parse_trial(spec.base)
    protocol = plain(resolve(trial.protocol, build_extractor("digits"), dataset, trial.task))
    folder = StudyFolder(tmp_path, "made")
    start = {"trials": 24, "fingerprint": dataset.fingerprint, "storage": None, "tracking_uri": None, "command": "made"}
    folder.save(spec, start)
    storage = open_storage(folder.path)
    ledger = open_ledger("made", spec, space, storage, fingerprint=dataset.fingerprint, replicates=REPLICATES)
    write_study(ledger.study, trials=24, replicates=[REPLICATES])
    for _ in range(2 * 21):
        _tell(ledger, protocol)
    return tmp_path


def _tell(ledger: Ledger, protocol: dict[str, object]) -> None:
    asked = ledger.ask(24)
    assert asked is not None
    fid = 5.0 + asked.point["num_steps"] + 0.01 * asked.replicate
    outcome = TrialOutcome({"fid": fid, "kid": fid / 100}, protocol)
    if asked.label == "3.1":
        ledger.fail(asked.number, "RuntimeError: boom\nmore")
    else:
        ledger.complete(asked.number, outcome)


def test_observe_groups_trainings_of_a_setting(home: Path) -> None:
    facts = observe(read_study(StudyFolder(home, "made")), home)
    counts = {setting.number: len(setting.values) for setting in facts.settings}
    assert len(counts) == 21
    assert counts == {number: 1 if number == 3 else 2 for number in counts}
    assert facts.failures == ("RuntimeError: boom",)
    assert (facts.replicated, facts.searched, facts.steps, facts.ended) == (True, True, (100,), 42)
    assert facts.protocol is not None
    first = facts.settings[0]
    assert first.mean() == pytest.approx(5.0 + first.point["num_steps"] + 0.005)
    assert first.spread("kid") is not None


def test_observe_values_of_another_judge_are_not_compared(home: Path) -> None:
    reader = read_study(StudyFolder(home, "made"))
    trial = reader.trials()[0]
    other = {**trial.user_attrs["protocol"], "extractor_sha256": "ab" * 32}
    trial.user_attrs["protocol"] = other  # as after an update of the judge's weights
    facts = observe(reader, home)
    assert "extractor_sha256" in facts.mixed
    assert "extractor_sha256" in (importance_of(facts, reader.space).refusal or "")


def test_observe_study_that_asked_too_few_settings_goes_on(home: Path) -> None:
    """All trials that were asked have ended, as if the driver was stopped between two trials."""
    folder = StudyFolder(home, "made")
    assert observe(read_study(folder), home).running
    study = load_started_study(folder.path, folder.name, None)
    write_study(study, trials=21)
    assert not observe(read_study(folder), home).running


def test_importance_command_prints_the_ranking_and_keeps_it(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["importance", "made", "--home", str(home), "--json"])
    assert ended.value.code == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["importance"]["rows"][0]["key"] == "num_steps"
    assert printed["importance"]["rows"][0]["rank_held"] > 0.5
    assert printed["importance"]["rows"][-1]["rank_held"] is None
    assert printed["importance"]["settings"] == 21
    assert len(list((home / "studies" / "made" / "importance").iterdir())) == 1
    with pytest.raises(SystemExit):
        cli.main(["importance", "made", "--home", str(home)])
    text = capsys.readouterr().out
    assert "num_steps" in text
    assert "rank held" in text
    assert "fANOVA on 21 settings" in text

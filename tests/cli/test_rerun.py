"""`coldtune rerun` on honest records, on a wrong record, and on a record of another environment."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from coldtune import cli
from coldtune.config import plain
from coldtune.data import Dataset, prepared
from coldtune.stages.compute import Compute
from coldtune.stages.rerun import Agreement, ImageAgreement, compare_environments, compare_software
from coldtune.store.provenance import keep_environment
from coldtune.studies.space.space import Space
from coldtune.studies.spec.build import build_spec
from coldtune.studies.spec.folder import StudyFolder
from coldtune.studies.storage.backends import open_storage
from coldtune.studies.storage.outcome import TrialOutcome
from coldtune.studies.trials.ledger import open_ledger
from finished_study import QUICK, SPACE, Finished

HERE = {"commit": "a" * 40, "torch": "2.15.0", "device": "CPU", "threads": 1, "workers": 1, "cpus": 2, "system": "x"}


@pytest.fixture(scope="module")
def recorded(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> StudyFolder:
    """A study whose trial 1 has a wrong FID in its record, and whose trial 2 says that it had another torch too."""
    home = tmp_path_factory.mktemp("recorded")
    for name in ("data", "store"):
        shutil.copytree(finished.home / name, home / name)
    dataset = Dataset.open(prepared(home, "digits")[0])
    (home / "space.yaml").write_text(SPACE)
    spec = build_spec("recorded", home / "space.yaml", settings=QUICK)
    folder = StudyFolder(home, spec.name)
    start = {"trials": 3, "fingerprint": dataset.fingerprint, "storage": None, "tracking_uri": None}
    folder.save(spec, {**start, "command": "python recorded.py"})
    ledger = open_ledger(spec.name, spec, Space(spec.space, spec.base, dataset.image_shape), open_storage(folder.path))
    for steps in (2, None):
        ledger.study.enqueue_trial({"num_steps": steps})
    environment = keep_environment(folder.environments)
    for number, outcome in enumerate([*finished.outcomes, finished.outcomes[0]]):
        assert ledger.ask().number == number
        wrong = {"fid": outcome.metrics["fid"] + 0.25 * (number > 0)}
        ledger.complete(
            number,
            TrialOutcome(
                {**outcome.metrics, **wrong},
                plain(outcome.protocol),
                computed=plain(Compute(device="cpu", threads=1)),
                environment={**environment, **({"torch": "2.0.0"} if number == 2 else {})},
            ),
        )
    return folder


@pytest.fixture
def rerun(recorded: StudyFolder, tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]):
    """Return a function that runs the command. It returns the exit code, the output and the record."""
    monkeypatch.chdir(tmp_path)

    def run(name: object, *flags: object) -> tuple[object, str, dict[str, Any]]:
        with pytest.raises(SystemExit) as ended:
            cli.main(["rerun", str(name), "--home", str(recorded.home), "--output", "out", *map(str, flags)])
        printed = capsys.readouterr()
        if ended.value.code == 2:
            raise ValueError(printed.err.removeprefix("error: ").strip())
        record = json.loads((tmp_path / "out" / "rerun.json").read_text())
        return ended.value.code, " ".join(printed.out.split()), record

    return run


def trained(home: Path) -> set[str]:
    return {path.parent.as_posix() for path in (home / "store").rglob("manifest.json")}


def test_rerun_of_an_honest_record_agrees_bit_for_bit(rerun, recorded: StudyFolder, tmp_path: Path, finished: Finished):
    before = trained(recorded.home)
    code, said, record = rerun(f"{recorded.name}/0")
    assert code == 0
    assert "Agrees bit for bit" in said
    assert record["exact"]
    assert record["weights"] == 0.0
    assert {name: (part["equal"], part["count"]) for name, part in record["images"].items()} == dict.fromkeys(
        ("degraded", "direct", "naive", "sampled"), (260, 260)
    )
    assert record["metrics"]["fid"]["now"] == finished.outcomes[0].metrics["fid"]
    assert trained(recorded.home) == before, "nothing is written into the old store"
    made = {path.relative_to(tmp_path / "out" / "store").parts[0] for path in (tmp_path / "out").rglob("manifest.json")}
    assert {"train", "sample", "measure"} <= made, "nothing was found"


@pytest.mark.slow
def test_rerun_of_a_config_file_compares_with_the_store(rerun, recorded, finished: Finished, tmp_path: Path):
    code, _, record = rerun(finished.config_file(tmp_path / "trial", 1))
    assert (code, record["exact"]) == (0, True)
    assert record["metrics"]["fid"]["then"] == finished.outcomes[1].metrics["fid"]


@pytest.mark.parametrize(
    ("number", "code", "why"),
    [(1, 1, "Nothing that is recorded explains it"), pytest.param(2, 0, "torch", marks=pytest.mark.slow)],
)
def test_rerun_of_a_wrong_value_fails_unless_the_environment_differs(rerun, recorded, number, code, why):
    ended, said, record = rerun(f"{recorded.name}/{number}")
    assert ended == code
    assert not record["exact"]
    assert "values differ (fid); in relation to its size fid differs most, by 0.25; all weights are equal" in said
    assert why in said
    assert ("torch" in record["environment"]) == (number == 2)


def test_rerun_of_an_unknown_trial_is_refused(rerun, finished: Finished, tmp_path: Path):
    with pytest.raises(ValueError, match="no such run"):
        rerun("nowhere")
    assert not (tmp_path / "out").exists()


def test_rerun_into_a_full_folder_is_refused(rerun, recorded: StudyFolder, tmp_path: Path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("")
    with pytest.raises(ValueError, match="--output out: must be a new or an empty folder"):
        rerun(f"{recorded.name}/0")


def test_compare_environments_names_the_parts_that_differ():
    then = {"trial": HERE, "training": {**HERE, "commit": "b" * 40, "cpus": 8}}
    commit, cpus = compare_environments(then, HERE)
    assert str(commit) == f"commit: then {'a' * 12} (trial); {'b' * 12} (training), now {'a' * 12}"
    assert commit.explains
    assert not cpus.explains
    (threads,) = compare_environments({"trial": HERE, "training": HERE}, {**HERE, "threads": 2})
    assert str(threads) == "threads: then 1, now 2"
    assert compare_environments({"trial": HERE}, HERE) == []


def test_compare_environments_unknown_threads_may_explain_a_difference():
    old = {name: value for name, value in HERE.items() if name != "threads"}
    (threads,) = compare_environments({"training": old}, HERE)
    assert str(threads) == "threads: then not recorded, now 1"
    assert threads.explains


def test_compare_software_leaves_out_packages_that_only_one_lists():
    then = {"packages": {"torch": "1", "numpy": "2", "colorama": "1"}, "diff": "+x"}
    now = {"packages": {"torch": "1", "numpy": "3", "ray": "2"}}
    found = compare_software(then, now)
    assert found["numpy"] == ("2", "3")
    assert found.keys() == {"numpy", "changes"}
    assert compare_software(then, then) == {}


@pytest.mark.parametrize(
    ("metrics", "weights", "largest", "exact"),
    [
        ({"fid": (1.0, 1.0), "psnr": (float("inf"), float("inf"))}, 0.0, 0, True),
        ({"fid": (1.0, 1.0)}, None, 0, True),
        ({"fid": (1.0, 1.0 + 2e-16)}, 0.0, 0, False),
        ({"fid": (1.0, 1.0)}, 1e-9, 0, False),
        ({"fid": (1.0, 1.0)}, 0.0, 1, False),
        ({"fid": (float("nan"), float("nan"))}, 0.0, 0, True),
    ],
)
def test_agreement_is_exact_only_if_everything_is_equal(metrics, weights, largest: int, exact: bool):
    images = {"sampled": ImageAgreement(10, 10 - (largest > 0), largest)}
    assert Agreement(metrics, weights, images).exact == exact

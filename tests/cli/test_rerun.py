"""`coldtune rerun` on honest records, on a wrong record, and on a record of another environment."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from coldtune import cli
from coldtune.config import plain
from coldtune.data import Dataset, prepared
from coldtune.stages.chain import Chain
from coldtune.stages.compute import Compute
from coldtune.stages.evaluate import FinishedTrial
from coldtune.stages.rerun import (
    Agreement,
    ImageAgreement,
    compare_environments,
    compare_software,
    find_first_run,
    first_run_of_files,
)
from coldtune.store.provenance import keep_environment
from coldtune.store.store import Store
from coldtune.studies.space.space import Space
from coldtune.studies.spec.build import build_spec
from coldtune.studies.spec.folder import StudyFolder
from coldtune.studies.storage.backends import open_storage
from coldtune.studies.storage.outcome import TrialOutcome
from coldtune.studies.trials.ledger import open_ledger
from coldtune.studies.trials.lookup import Home, find_run
from coldtune.studies.worker.artifacts import log_artifacts
from coldtune.tracking import Target, Tracker, drain
from coldtune.tracking.spool import Spool, State, run_file
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
    (then, now) = record["metrics"]["fid"].values()
    share = f"{100 * abs(now - then) / then:.2g} %"
    assert f"values differ (fid); fid differs most for its size, by 0.25, or {share}; all weights are equal" in said
    assert why in said
    assert ("torch" in record["environment"]) == (number == 2)


RUN_ID = "0123456789abcdef" * 2


@pytest.mark.slow
def test_rerun_of_an_mlflow_run_of_another_home_compares_with_the_run(
    rerun, finished: Finished, digits_home: Path, target: Target, tmp_path: Path
):
    """The home has only the dataset. The values, their protocol and the environment come from MLflow."""
    chain = Chain(finished.configs[1], finished.dataset, Store(finished.home / "store"))
    with Tracker(tmp_path / "spool", "elsewhere") as parent:
        parent.end("finished")
    with Tracker(tmp_path / "spool", "elsewhere", 0) as tracker:
        made = {"device": "another CPU", "threads": 1}
        log_artifacts(tracker, finished.configs[1], chain, finished.outcomes[1], made)
        tracker.end("finished")
    assert not drain(tmp_path / "spool", target).pending
    run_id = tracker.run_id()
    shutil.copytree(digits_home / "data", tmp_path / "home" / "data")
    code, said, record = rerun(run_id, "--tracking-uri", target.uri, "--home", tmp_path / "home")
    assert (code, record["exact"], record["weights"]) == (0, True, None)
    assert "device: then another CPU" in said
    assert {name: pair["then"] for name, pair in record["metrics"].items()} == finished.outcomes[1].metrics


def test_first_run_of_files_has_the_values_and_the_environment(finished: Finished):
    outcome = finished.outcomes[1]
    judged = {name: json.loads((path / "metrics.json").read_text()) for name, path in outcome.measured.items()}
    record = {"environment": HERE, "stages": [{"stage": "train", "seconds": 3.5}, {"stage": "sample", "seconds": 1.0}]}
    run = FinishedTrial("run", finished.configs[1], finished.dataset)
    first = first_run_of_files(run, judged, record)
    assert (first.metrics, first.made, first.seconds) == (outcome.metrics, {"trial": HERE}, 3.5)
    assert first.protocol.key == outcome.protocol.key


def test_first_run_of_another_number_of_threads_is_found(finished: Finished):
    run, store = FinishedTrial("run", finished.configs[1], finished.dataset), Store(finished.home / "store")
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)  # as --threads does
    try:
        assert find_first_run(run, store, "cpu") is None
        first = find_first_run(run, store, "cpu", threads)
    finally:
        torch.set_num_threads(threads)
    assert first is not None
    assert first.metrics == finished.outcomes[1].metrics
    assert first.checkpoint == finished.outcomes[1].checkpoint


def test_find_run_by_mlflow_run_of_the_home_is_the_trial_of_its_study(recorded: StudyFolder, tmp_path: Path):
    """No MLflow server is needed, and the study's record of the trial is known."""
    home = tmp_path / "home"
    shutil.copytree(recorded.home / "studies", home / "studies")
    (home / "data").symlink_to(recorded.home / "data")
    spool = StudyFolder(home, recorded.name).spool
    spool.mkdir(exist_ok=True)
    (spool / "trial-0000.state").write_text("not JSON")
    Spool(spool, run_file(2)).save(State("server", RUN_ID))
    run = find_run(RUN_ID, Home(home))
    assert (run.name, run.config) == (f"{recorded.name}/2", find_run(f"{recorded.name}/2", Home(home)).config)
    assert Compute(device="cpu", threads=1) in run.computed
    with pytest.raises(ValueError, match="no such MLflow run"):
        find_run(RUN_ID[::-1], Home(home))


def test_find_run_whose_dataset_is_gone_says_how_to_prepare_it(
    recorded: StudyFolder, finished: Finished, tmp_path: Path
):
    shutil.copytree(recorded.home / "studies", tmp_path / "studies")
    fingerprint = finished.dataset.fingerprint[:12]
    with pytest.raises(
        ValueError, match=f"its dataset digits with the fingerprint {fingerprint} is no longer in"
    ) as no:
        find_run(f"{recorded.name}/0", Home(tmp_path))
    assert f"coldtune data prepare digits --image-size 16 --resize bilinear --home {tmp_path}`" in str(no.value)


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

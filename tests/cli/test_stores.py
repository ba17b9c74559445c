"""A study whose finished work lies in a bucket: what its trials record, and who finds it again; without a cluster."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import servers
from coldtune.cli import main
from coldtune.cli.stores import store_of_home, store_of_runs
from coldtune.data import Dataset, prepared
from coldtune.store.location import StoreLocation
from coldtune.store.store import Store
from coldtune.studies.space.space import Space
from coldtune.studies.spec.build import build_spec
from coldtune.studies.spec.folder import StudyFolder
from coldtune.studies.storage.backends import open_storage
from coldtune.studies.trials.ledger import open_ledger
from coldtune.studies.trials.reading import read_study
from coldtune.studies.worker.job import TrialJob
from coldtune.studies.worker.trial import _run

SPACE = "base: digits-quick\nvary:\n  sampler.num_steps: {choices: [2, 3]}\n"
QUICK = [
    "training.steps=4", "training.batch_size=16", "training.checkpoint_every=2", "training.validate_every=0",
    "training.report_every=4", "degradation.steps=4", "protocol.num_images=260", "sampler.num_steps=2",
]  # fmt: skip


@pytest.fixture
def url(s3: servers.S3, monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    return s3.url(s3.bucket(), "cold/store")


def run_trials(home: Path, digits_home: Path, store: str) -> StudyFolder:
    """Two real trials, run as on a worker and told to a real ledger."""
    shutil.copytree(digits_home / "data", home / "data")
    (home / "space.yaml").write_text(SPACE)
    spec = build_spec("quick", home / "space.yaml", settings=QUICK)
    folder, dataset = StudyFolder(home, spec.name), Dataset.open(prepared(home, "digits")[0])
    start = {"trials": 2, "fingerprint": dataset.fingerprint, "storage": None, "tracking_uri": None, "store": store}
    folder.save(spec, start)
    space = Space(spec.space, spec.base, dataset.image_shape)
    ledger = open_ledger(folder.name, spec, space, open_storage(folder.path), store=folder.store())
    for _ in range(2):
        asked = ledger.ask()
        job = TrialJob(
            study=folder.name, number=asked.number, again=False, trial=asked.config, leftover=None, home=str(home),
            store=store, dataset_path=str(dataset.path), source_path=None, spool=str(folder.spool), tags={}, workers=1,
            cpus=1, gpus=0,
        )  # fmt: skip
        outcome = _run(job, lambda *_: None)
        assert ledger.complete(asked.number, outcome) is None
    return folder


def command(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return int(ended.value.code or 0)


@pytest.mark.slow
def test_trials_in_a_bucket_are_found_by_every_command(
    digits_home: Path, tmp_path: Path, url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    folder = run_trials(home, digits_home, url)
    shown = StoreLocation.of(url).shown
    recorded = read_study(folder).trials()[0].user_attrs
    assert recorded["checkpoint"].startswith(f"{shown}/train/")
    assert recorded["images"]["sampled"].startswith(f"{shown}/sample/")
    assert not (home / "store").exists()

    shutil.rmtree(home / "store-copies")  # as on another machine
    capsys.readouterr()
    assert command("study", "show", folder.name, "--home", home) == 0
    said = capsys.readouterr().out
    assert f"its restorer   {shown}/train/" in said
    assert "Trial " in said.partition("best:")[2], "the best one against the other, by judgements from the bucket"
    assert command("evaluate", f"{folder.name}/0", "--home", home) == 0
    assert command("store", "ls", "--home", home) == 0
    assert shown in capsys.readouterr().out
    assert command("store", "verify", "--home", home) == 0
    assert command("store", "gc", "--home", home, "--older", "0", "--yes") == 0
    assert "What studies that are not in" in capsys.readouterr().out
    steps = [name for name in Store(StoreLocation.of(url)).files.tree("train") or {} if name.endswith("/manifest.json")]
    assert [name.split("/")[1] for name in steps] == ["00000004"], "not the checkpoint at 2, which it passed"
    assert command("evaluate", f"{folder.name}/1", "--home", home) == 0


def test_gc_of_a_bucket_keeps_what_another_homes_study_uses(
    digits_home: Path, tmp_path: Path, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("mine", "other"):
        (tmp_path / name).mkdir()
    run_trials(tmp_path / "other", digits_home, url)
    before = set(Store(StoreLocation.of(url)).files.tree("sample") or {})
    assert command("store", "gc", "--home", tmp_path / "mine", "--store", url, "--older", "0", "--yes") == 0
    assert set(Store(StoreLocation.of(url)).files.tree("sample") or {}) == before


def test_which_store_is_meant(tmp_path: Path, root: Path) -> None:
    spec = build_spec("sweep_blur", root / "search_spaces" / "blur.yaml")
    assert store_of_home(tmp_path) == StoreLocation.in_home(tmp_path, None)
    for study, store in (("a", None), ("b", "/elsewhere/store")):
        StudyFolder(tmp_path, study).save(spec, {"store": store})
    assert store_of_runs(tmp_path, ["a/0", "a"]).path == tmp_path / "store"
    assert store_of_runs(tmp_path, ["b/3"]).path == Path("/elsewhere/store")
    assert store_of_home(tmp_path, "s3://bucket/x").shown == "s3://bucket/x"
    with pytest.raises(ValueError, match=f"--store: .* use several; name one of /elsewhere/store, {tmp_path}/store"):
        store_of_runs(tmp_path, ["a/0", "b/3"])
    with pytest.raises(ValueError, match="--store"):
        store_of_home(tmp_path)

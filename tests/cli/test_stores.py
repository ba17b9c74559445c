"""A study whose store is a bucket: its trials, the commands that use the store, and garbage collection."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import servers
from coldtune.cli import main
from coldtune.cli.store_lookup import locate_store, locate_store_of_trials
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
    """Run two real trials as a worker does, with a real ledger."""
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
            store=store, dataset_path=str(dataset.path), source_path=None, spool=str(folder.spool),
            environments=str(home / "environments"), tags={}, workers=1,
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
def test_commands_find_trials_in_a_bucket(
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

    shutil.rmtree(home / "store-copies")  # another machine has no copies
    capsys.readouterr()
    assert command("study", "show", folder.name, "--home", home) == 0
    said = capsys.readouterr().out
    assert f"its restorer   {shown}/train/" in said
    assert "Trial " in said.partition("best:")[2], (
        "the best trial must be compared with the other by judgements from the bucket"
    )
    assert command("evaluate", f"{folder.name}/0", "--home", home) == 0
    assert command("store", "ls", "--home", home) == 0
    assert shown in capsys.readouterr().out
    assert command("store", "verify", "--home", home) == 0
    assert command("store", "gc", "--home", home, "--older", "0", "--yes") == 0
    assert "Entries that studies outside" in capsys.readouterr().out
    steps = [name for name in Store(StoreLocation.of(url)).files.tree("train") or {} if name.endswith("/manifest.json")]
    assert [name.split("/")[1] for name in steps] == ["00000004"], "gc must remove the checkpoint at step 2"
    assert command("evaluate", f"{folder.name}/1", "--home", home) == 0


def test_store_gc_of_a_bucket_keeps_entries_of_another_home(
    digits_home: Path, tmp_path: Path, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("mine", "other"):
        (tmp_path / name).mkdir()
    run_trials(tmp_path / "other", digits_home, url)
    before = set(Store(StoreLocation.of(url)).files.tree("sample") or {})
    assert command("store", "gc", "--home", tmp_path / "mine", "--store", url, "--older", "0", "--yes") == 0
    assert set(Store(StoreLocation.of(url)).files.tree("sample") or {}) == before


def test_locate_store_uses_the_store_of_the_studies(tmp_path: Path, root: Path) -> None:
    spec = build_spec("sweep_blur", root / "search_spaces" / "blur.yaml")
    assert locate_store(tmp_path) == StoreLocation.in_home(tmp_path, None)
    for study, store in (("a", None), ("b", "/elsewhere/store")):
        StudyFolder(tmp_path, study).save(spec, {"trials": 1, "fingerprint": "0", "store": store})
    assert locate_store_of_trials(tmp_path, ["a/0", "a"]).path == tmp_path / "store"
    assert locate_store_of_trials(tmp_path, ["b/3"]).path == Path("/elsewhere/store")
    assert locate_store(tmp_path, "s3://bucket/x").shown == "s3://bucket/x"
    with pytest.raises(
        ValueError, match=f"--store: .* use several stores. Name one of /elsewhere/store, {tmp_path}/store"
    ):
        locate_store_of_trials(tmp_path, ["a/0", "b/3"])
    with pytest.raises(ValueError, match="--store"):
        locate_store(tmp_path)

"""No result in the store comes from pixels other than its key says, whenever the prepared data was damaged."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from coldtune import presets
from coldtune.data import Dataset, prepared
from coldtune.data.errors import DamagedDataError
from coldtune.stages.chain import Chain
from coldtune.stages.trial import TrialConfig, parse_trial
from coldtune.store.store import Store
from coldtune.training.loop import train


@pytest.fixture
def folder(digits_home: Path, tmp_path: Path) -> Path:
    whole = prepared(digits_home, "digits")[0]
    return Path(shutil.copytree(whole, tmp_path / "home" / "data" / whole.name))


def config() -> TrialConfig:
    tree = presets.load("digits-quick")
    tree["training"] |= {"steps": 6, "batch_size": 16, "checkpoint_every": 3, "validate_every": 0, "report_every": 2}
    tree["degradation"]["steps"] = 4
    tree["protocol"]["num_images"] = 260
    return parse_trial(tree)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)


def entries(store: Store, kind: str) -> list[str]:
    return [name for name in store.files.list(kind) if not name.startswith(".")]


def test_chain_damaged_reference_is_refused_before_anything_is_computed(folder: Path, tmp_path: Path) -> None:
    flip(folder / "validation.arrow")
    with pytest.raises(DamagedDataError, match=r"validation\.arrow.*data prepare"):
        Chain(config(), Dataset.open(folder), Store(tmp_path / "store"))


def test_chain_damaged_training_images_are_refused_before_the_training(folder: Path, tmp_path: Path) -> None:
    flip(folder / "train.arrow")
    store, reports = Store(tmp_path / "store"), []
    chain = Chain(config(), Dataset.open(folder), store)
    with pytest.raises(DamagedDataError, match=r"train\.arrow.*data prepare"):
        chain.run(train, lambda step, _: reports.append(step))
    assert reports == []
    assert entries(store, "sample") == []


def test_chain_damage_during_the_training_keeps_no_checkpoint(folder: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    chain = Chain(config(), Dataset.open(folder), store)
    with pytest.raises(DamagedDataError, match=r"train\.arrow"):
        chain.run(train, lambda step, _: flip(folder / "train.arrow") if step == 2 else None)
    assert not list((tmp_path / "store").rglob("*.safetensors"))


def test_chain_damage_during_the_sampling_keeps_no_images(folder: Path, tmp_path: Path) -> None:
    store, done = Store(tmp_path / "store"), []

    def progress(stage: str, share: float) -> None:
        if not done:
            flip(folder / "validation.arrow")
        done.append(stage)

    chain = Chain(config(), Dataset.open(folder), store)
    with pytest.raises(DamagedDataError, match=r"validation\.arrow"):
        chain.run(train, lambda *_: None, progress)
    kept = len(list((tmp_path / "store" / "sample").rglob("images.safetensors")))
    assert done
    assert kept <= 1, "only the degraded images, which were made before the damage"

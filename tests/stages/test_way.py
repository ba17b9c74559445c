"""A trial trains and samples in one way. The keys of its training and of its images say in which."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from coldtune import presets
from coldtune.data import Dataset, prepared
from coldtune.stages.chain import Chain
from coldtune.stages.compute import Compute
from coldtune.stages.trial import TrialConfig, parse_trial
from coldtune.store.store import Store
from coldtune.training import way
from coldtune.training.loop import TrainingTask, train
from coldtune.training.way import EAGER, CompileError, Way

STATIC = Way(static=True)


@pytest.fixture(scope="module")
def dataset(digits_home: Path) -> Dataset:
    return Dataset.open(prepared(digits_home, "digits")[0])


@pytest.fixture(autouse=True)
def _no_failure_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(way, "_FAILED", [])


def config(**training: Any) -> TrialConfig:
    tree = presets.load("digits-quick")
    tree["training"] |= {"steps": 4, "batch_size": 16, "checkpoint_every": 2, "validate_every": 0, **training}
    tree["degradation"]["steps"] = 4
    tree["protocol"] |= {"num_images": 260, "reference": "same"}
    return parse_trial(tree)


def chain_in(monkeypatch: pytest.MonkeyPatch, chosen: Way, dataset: Dataset, folder: Path, **training: Any) -> Chain:
    monkeypatch.setattr("coldtune.stages.chain.choose_way", lambda *_: chosen)
    return Chain(config(**training), dataset, Store(folder))


def test_compute_of_eager_way_is_written_as_before() -> None:
    assert Compute.here("cuda", EAGER, "bfloat16") == Compute(device="gpu")
    assert Compute.here("cuda", way.FAST, "bfloat16").way == "compiled, CUDA graph, channels last, bfloat16"


def test_chain_setting_that_is_not_possible_here_changes_no_key(dataset: Dataset, tmp_path: Path) -> None:
    off = Chain(config(), dataset, Store(tmp_path))
    with pytest.warns(UserWarning, match="so the training runs eagerly"):
        auto = Chain(config(compile="auto"), dataset, Store(tmp_path))
    assert auto.train_key() == off.train_key()
    assert auto.sample_key(auto.config.sampler) == off.sample_key(off.config.sampler)


def test_chain_in_another_way_has_keys_and_equal_values(
    monkeypatch: pytest.MonkeyPatch, dataset: Dataset, tmp_path: Path
) -> None:
    """On a CPU the static step equals the eager step in every bit, and so do the images up to 8-bit rounding."""
    eager = chain_in(monkeypatch, EAGER, dataset, tmp_path / "one")
    static = chain_in(monkeypatch, STATIC, dataset, tmp_path / "one")
    assert eager.train_key() != static.train_key()
    expected = eager.run(train, lambda *_: None)
    outcome = static.run(train, lambda *_: None)
    assert not any(record.found for record in outcome.stages if record.stage in ("train", "sample"))
    assert outcome.metrics["fid"] == pytest.approx(expected.metrics["fid"], rel=1e-3)
    assert outcome.metrics["rmse"] == pytest.approx(expected.metrics["rmse"], rel=1e-4)


def test_chain_way_that_fails_goes_on_eagerly(
    monkeypatch: pytest.MonkeyPatch, dataset: Dataset, tmp_path: Path
) -> None:
    def fails(task: TrainingTask, *rest: Any) -> Any:
        if task.way != EAGER:
            raise CompileError("no kernel")
        return train(task, *rest)

    chain = chain_in(monkeypatch, STATIC, dataset, tmp_path)
    with pytest.warns(UserWarning, match="no kernel. The trial goes on eagerly"):
        chain.train(fails, lambda *_: None)
    assert chain.way == EAGER
    assert chain.train_key() == chain_in(monkeypatch, EAGER, dataset, tmp_path).train_key()
    assert way._FAILED == ["no kernel"]


def test_chain_way_that_fails_after_a_checkpoint_is_refused(
    monkeypatch: pytest.MonkeyPatch, dataset: Dataset, tmp_path: Path
) -> None:
    def fails(*_: Any) -> Any:
        raise CompileError("no kernel")

    chain_in(monkeypatch, STATIC, dataset, tmp_path, steps=2).train(train, lambda *_: None)
    chain = chain_in(monkeypatch, STATIC, dataset, tmp_path)
    with pytest.raises(ValueError, match=r"no kernel. Step 2 of this training was reached in the way: static"):
        chain.train(fails, lambda *_: None)


def test_chain_restorer_that_fails_samples_eagerly_from_the_same_training(
    monkeypatch: pytest.MonkeyPatch, dataset: Dataset, tmp_path: Path
) -> None:
    def fails(*_: Any) -> Any:
        raise CompileError("no kernel")

    chain = chain_in(monkeypatch, STATIC, dataset, tmp_path)
    checkpoint = chain.train(train, lambda *_: None)
    trained = chain.train_key()
    monkeypatch.setattr("coldtune.stages.chain.StaticRestorer", fails)
    with pytest.warns(UserWarning, match="no kernel. The trial goes on eagerly"):
        entry = chain.sample("sampled", chain.config.sampler, checkpoint)
    assert chain.train_key() == trained
    assert entry.key == chain.sample_key(chain.config.sampler)

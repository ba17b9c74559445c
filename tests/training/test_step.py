"""The step with static shapes takes the steps of the eager loop, and a training keeps its way."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from training_helpers import (
    BLUR,
    InterruptedTrainingError,
    LimitedRestorer,
    MakeTask,
    Reports,
    assert_same_rows,
    limit_memory,
    tensors,
    unequal,
)

from coldtune.diffusion import RestorerConfig, build_restorer
from coldtune.training import FolderCheckpoints, TrainingConfig, TrainingTask, train
from coldtune.training.step import StaticRestorer
from coldtune.training.way import EAGER, FAST, CompileError, Way, choose_way

STATIC = Way(static=True)
CHANNELS_LAST = Way(static=True, channels_last=True)
NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def trained(task: TrainingTask, way: Way, folder: Path) -> tuple[dict[str, torch.Tensor], Reports]:
    train(dataclasses.replace(task, way=way), checkpoints := FolderCheckpoints(folder), reports := Reports())
    return tensors(checkpoints, task.training.steps), reports


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({}, id="plain"),
        pytest.param({"accumulate": 2, "loss": "l2", "clip_norm": 0.01}, id="accumulate, clipped"),
        # 1076 training images: several epochs begin within the training.
        pytest.param({"batch_size": 500, "steps": 6, "ema_every": 2, "ema_warmup": False}, id="epochs"),
    ],
)
def test_static_step_equals_eager_step(make_task: MakeTask, tmp_path: Path, settings: dict[str, Any]) -> None:
    task = make_task({"crop_pad": 1, "flip": True}, report_every=1, **settings)
    eager, reference = trained(task, EAGER, tmp_path / "eager")
    static, reports = trained(task, STATIC, tmp_path / "static")
    assert unequal(eager, static) == []
    assert_same_rows(reports.rows, reference.rows)


def test_static_step_resumed_equals_uninterrupted(make_task: MakeTask, tmp_path: Path) -> None:
    """The moments come from a file, in which channels are never last."""
    task = dataclasses.replace(make_task(checkpoint_every=5, report_every=1), way=CHANNELS_LAST)
    whole, resumed = FolderCheckpoints(tmp_path / "whole"), FolderCheckpoints(tmp_path / "resumed")
    train(task, whole, Reports())
    with pytest.raises(InterruptedTrainingError):
        train(task, resumed, Reports(stop_at=6))
    assert train(task, resumed, Reports()).resumed_from == 5
    assert unequal(tensors(whole, 12), tensors(resumed, 12)) == []


def test_static_step_memory_exhausted_equals_more_accumulation(
    make_task: MakeTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    common = {"steps": 4, "report_every": 1}
    small, reference = trained(make_task(batch_size=2, accumulate=4, **common), STATIC, tmp_path / "small")
    limit_memory(monkeypatch, fits=2)
    with pytest.warns(UserWarning, match="out of memory with"):
        limited, reports = trained(make_task(batch_size=8, **common), STATIC, tmp_path / "limited")
    assert LimitedRestorer.raised == 2, "with 8 images and with 4, and never again"
    assert unequal(limited, small) == []
    assert reports.rows[1].pop("micro_batch") == 2
    assert_same_rows(reports.rows, reference.rows)


@pytest.mark.parametrize(("before", "after"), [(EAGER, STATIC), (STATIC, EAGER), (STATIC, CHANNELS_LAST)])
def test_train_resumed_in_another_way_is_refused(make_task: MakeTask, tmp_path: Path, before: Way, after: Way) -> None:
    trained(make_task(steps=2), before, tmp_path)
    with pytest.raises(ValueError, match=f"in the way: {before}. Here it would run in the way: {after}."):
        trained(make_task(steps=4), after, tmp_path)


def test_checkpoint_of_eager_training_is_as_before(make_task: MakeTask, tmp_path: Path) -> None:
    trained(make_task(steps=2), EAGER, tmp_path)
    found = FolderCheckpoints(tmp_path).latest(2)
    assert found
    assert set(json.loads((found[1] / "state.json").read_text())) == {"format", "step", "position", "torch"}


def test_train_static_step_that_fails_raises_compile_error(
    make_task: MakeTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> None:
        raise RuntimeError("no kernel\nsecond line")

    monkeypatch.setattr("coldtune.training.step._compiled", lambda _: fails)
    with pytest.raises(CompileError, match=r"^RuntimeError: no kernel$"):
        trained(make_task(steps=2), Way(static=True, compiled=True), tmp_path)
    assert FolderCheckpoints(tmp_path).latest(2) is None


def test_choose_way_on_cpu_warns_and_is_eager() -> None:
    assert choose_way("off", "cpu") == EAGER
    with pytest.warns(UserWarning, match=r"training.compile = 'auto': .* on a cpu device, so the training"):
        assert choose_way("auto", "cpu") == EAGER


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ({"workers": 2}, "2 workers train together"),
        ({"capability": (6, 1)}, r"compute capability 6\.1 is too old"),
        ({"triton": None}, "triton is missing"),
        ({"compiler": None}, "no C compiler"),
    ],
)
def test_choose_way_without_what_it_needs_names_it(
    monkeypatch: pytest.MonkeyPatch, fault: dict[str, Any], says: str
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: fault.get("capability", (9, 0)))
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: fault.get("triton", "found"))
    monkeypatch.setattr("shutil.which", lambda _: fault.get("compiler", "/usr/bin/gcc"))
    with pytest.warns(UserWarning, match=says):
        assert choose_way("auto", "cuda", fault.get("workers", 1)) == EAGER


def test_choose_way_with_all_it_needs_is_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: "found")
    monkeypatch.setattr("shutil.which", lambda _: "/usr/bin/gcc")
    assert choose_way("auto", "cuda") == FAST


def test_training_compile_is_no_part_of_the_trajectory() -> None:
    assert TrainingConfig(compile="auto").trajectory() == TrainingConfig().trajectory()
    assert "compile" not in TrainingConfig().trajectory()


def test_static_restorer_equals_network_for_every_batch_size() -> None:
    network = build_restorer(RestorerConfig(size="tiny"), (1, 8, 8), steps=8).eval().requires_grad_(False)
    restorer = StaticRestorer(network, STATIC, "float32")
    for count in (5, 3, 5, 7):  # the last one is larger than the first
        x = torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(count))
        t = torch.full((count,), 1 + count % 8)
        out = restorer(x, t)
        torch.testing.assert_close(out, network(x, t), rtol=1e-5, atol=1e-6)
        kept = out.clone()
        restorer(x + 1, t)
        assert torch.equal(out, kept), "a result is not overwritten by the next call"


@pytest.mark.slow
def test_compiled_step_equals_eager_step(make_task: MakeTask, tmp_path: Path) -> None:
    """Sums are made in another order, so values agree to about 1e-6 at first. Compiling takes about a minute."""
    task = make_task(steps=4, report_every=1)
    _, reference = trained(task, EAGER, tmp_path / "eager")
    _, reports = trained(task, Way(static=True, compiled=True), tmp_path / "compiled")
    for step, row in reference.rows.items():
        assert reports.rows[step]["loss"] == pytest.approx(row["loss"], rel=1e-4)
        assert reports.rows[step]["grad_norm"] == pytest.approx(row["grad_norm"], rel=1e-3)


@NEEDS_GPU
@pytest.mark.parametrize("way", [Way(static=True, captured=True), FAST], ids=str)
def test_captured_step_equals_eager_step_on_gpu(make_task: MakeTask, tmp_path: Path, way: Way) -> None:
    """Steps 1 to 3 are launched one by one, and all others are replayed."""
    task = make_task(steps=10, report_every=1, checkpoint_every=6)
    _, reference = trained(task, EAGER, tmp_path / "eager")
    whole, reports = trained(task, way, tmp_path / "way")
    for step, row in reference.rows.items():
        assert reports.rows[step]["loss"] == pytest.approx(row["loss"], rel=1e-3)
    trained(
        dataclasses.replace(task, training=TrainingConfig(**{**task.training.model_dump(), "steps": 6})),
        way,
        tmp_path / "two",
    )
    resumed, _ = trained(task, way, tmp_path / "two")
    assert set(resumed) == set(whole)
    for name, value in whole.items():
        torch.testing.assert_close(resumed[name], value, rtol=1e-2, atol=1e-4)


@NEEDS_GPU
def test_captured_restorer_equals_network_on_gpu() -> None:
    network = build_restorer(RestorerConfig(size="tiny"), (1, 8, 8), steps=BLUR["steps"]).cuda().eval()
    restorer = StaticRestorer(network.requires_grad_(False), Way(static=True, captured=True), "float32")
    for count in (5, 3, 5):
        x, t = torch.randn(count, 1, 8, 8, device="cuda"), torch.full((count,), 3, device="cuda")
        torch.testing.assert_close(restorer(x, t), network(x, t), rtol=1e-4, atol=1e-4)

"""The training loop, compared with the paper's formulas, which the tests compute from its checkpoints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from training_helpers import BLUR, MakeTask, Reports

from coldtune.data import Dataset
from coldtune.diffusion import RestorerConfig, build_degradation
from coldtune.training import DivergedError, FolderCheckpoints, TrainingTask, load_restorer, train
from coldtune.training.batches import TrainingBatches, ValidationGrid

CPU = torch.device("cpu")
TINY = RestorerConfig(size="tiny")


@pytest.fixture
def checkpoints(tmp_path: Path) -> FolderCheckpoints:
    return FolderCheckpoints(tmp_path)


def restorer(checkpoints: FolderCheckpoints, step: int, digits: Dataset, *, ema: bool) -> nn.Module:
    found = checkpoints.latest(step)
    assert found
    assert found[0] == step
    return load_restorer(found[1], TINY, digits.image_shape, BLUR["steps"], ema=ema)


def loss_of(network: nn.Module, task: TrainingTask, digits: Dataset, start: int, stop: int) -> torch.Tensor:
    """Return |R(D(x, t), t) - x| or its square, averaged over the samples start..stop."""
    degradation = build_degradation(task.degradation, digits.image_shape)
    images = digits.split("train").images
    batch = TrainingBatches(images, task.data, degradation, task.training.seed, CPU).at(start, stop)
    difference = network(batch.x_t, batch.t) - batch.x0
    return (difference.abs() if task.training.loss == "l1" else difference.square()).mean()


@pytest.mark.parametrize("loss", ["l1", "l2"])
def test_train_loss_and_gradient_equal_formula_of_paper(
    make_task: MakeTask, checkpoints: FolderCheckpoints, digits: Dataset, loss: str
) -> None:
    """Step 3 uses the gradient of the loss of section 3.1, at the weights of step 2, over the next 2 x 8 samples."""
    task = make_task(steps=3, accumulate=2, loss=loss, report_every=1, checkpoint_every=1)
    train(task, checkpoints, reports := Reports())
    network = restorer(checkpoints, 2, digits, ema=False).requires_grad_(True)
    expected = loss_of(network, task, digits, 2 * 16, 3 * 16)
    expected.backward()
    norm = torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None]).norm()
    assert reports.rows[3]["loss"] == pytest.approx(expected.item(), rel=1e-5)
    assert reports.rows[3]["grad_norm"] == pytest.approx(norm.item(), rel=1e-4)


def test_train_large_gradient_is_clipped_to_norm(make_task: MakeTask, checkpoints: FolderCheckpoints) -> None:
    """After the first step, Adam's first moment is (1 - beta_1) times the gradient that it received."""
    train(make_task(steps=1, clip_norm=0.01), checkpoints, reports := Reports())
    found = checkpoints.latest(1)
    assert found
    moments = load_file(found[1] / "optimizer.safetensors")
    norm = torch.cat([value.flatten() for name, value in moments.items() if name.endswith("exp_avg")]).norm() / 0.1
    assert reports.rows[1]["grad_norm"] > 0.1
    assert float(norm) == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize(("every", "warmup"), [(1, True), (2, True), (3, False)])
def test_train_average_follows_recursion(
    make_task: MakeTask, checkpoints: FolderCheckpoints, digits: Dataset, every: int, warmup: bool
) -> None:
    """ema <- d_k ema + (1 - d_k) w every few steps, from the initial weights; d_k = min(.9, (1 + k) / (10 + k))."""
    task = make_task(steps=7, checkpoint_every=1, ema_decay=0.9, ema_every=every, ema_warmup=warmup)
    train(task, checkpoints, Reports())
    weights = [
        {name: value.double() for name, value in restorer(checkpoints, step, digits, ema=False).state_dict().items()}
        for step in range(1, 8)
    ]
    train(make_task(steps=1, lr=1e-38), start := FolderCheckpoints(checkpoints.folder / "start"), Reports())
    average = {k: v.double() for k, v in restorer(start, 1, digits, ema=False).state_dict().items()}
    for k, step in enumerate(range(every, 8, every)):
        decay = min(0.9, (1 + k) / (10 + k)) if warmup else 0.9
        average = {name: decay * old + (1 - decay) * weights[step - 1][name] for name, old in average.items()}
    for name, value in restorer(checkpoints, 7, digits, ema=True).state_dict().items():
        torch.testing.assert_close(value.double(), average[name], rtol=1e-5, atol=1e-7)


def test_train_validation_loss_is_error_of_averaged_model_on_grid(
    make_task: MakeTask, checkpoints: FolderCheckpoints, digits: Dataset
) -> None:
    """It is a mean absolute error although the training loss is squared. The grid is not a whole number of batches."""
    task = make_task(steps=6, validate_every=4, validate_images=21, loss="l2", checkpoint_every=4)
    train(task, checkpoints, reports := Reports())
    grid = ValidationGrid(digits.split("validation").images, build_degradation(BLUR, digits.image_shape), 21, CPU).at(
        0, 21
    )
    for step in (4, 6):
        with torch.no_grad():
            restored = restorer(checkpoints, step, digits, ema=True)(grid.x_t, grid.t)
        assert reports.rows[step]["val_loss"] == pytest.approx(float((restored - grid.x0).abs().mean()), rel=1e-5)


def test_train_reports_come_when_due_and_average_steps_since_last(
    make_task: MakeTask, checkpoints: FolderCheckpoints, tmp_path: Path
) -> None:
    task = make_task(steps=7, report_every=3, validate_every=2)
    train(task, checkpoints, reports := Reports())
    assert {step: set(row) - {"images_per_s", "grad_norm"} for step, row in reports.rows.items()} == {
        2: {"val_loss"},
        3: {"loss"},
        4: {"val_loss"},
        6: {"loss", "val_loss"},
        7: {"loss", "val_loss"},
    }
    train(make_task(steps=7, report_every=1), FolderCheckpoints(tmp_path / "each"), each := Reports())
    for key in ("loss", "grad_norm"):
        mean = sum(each.rows[step][key] for step in (4, 5, 6)) / 3
        assert reports.rows[6][key] == pytest.approx(mean, rel=1e-12)
        assert reports.rows[7][key] == each.rows[7][key]


def test_train_lowers_loss(make_task: MakeTask, checkpoints: FolderCheckpoints) -> None:
    train(make_task(steps=60, report_every=10, validate_every=10), checkpoints, reports := Reports())
    assert reports.rows[60]["loss"] < 0.7 * reports.rows[10]["loss"]
    assert reports.rows[60]["val_loss"] < 0.7 * reports.rows[10]["val_loss"]


@pytest.mark.parametrize(("report_every", "checkpoint_every"), [(1, 0), (50, 3), (50, 0)])
def test_train_diverged_raises_first_bad_step_and_saves_nothing(
    make_task: MakeTask, checkpoints: FolderCheckpoints, report_every: int, checkpoint_every: int
) -> None:
    """With lr = 1e30 the gradient of step 2 is the first that is not finite, even if it is noticed later."""
    task = make_task(steps=20, lr=1e30, report_every=report_every, checkpoint_every=checkpoint_every)
    with pytest.raises(DivergedError, match=r"not finite at step 2\. A smaller training\.lr") as caught:
        train(task, checkpoints, reports := Reports())
    assert caught.value.step == 2
    assert isinstance(caught.value, FloatingPointError)
    assert checkpoints.latest(20) is None
    assert set(reports.rows) <= {1}


def test_train_same_seed_repeats_losses_and_other_seed_does_not(make_task: MakeTask, tmp_path: Path) -> None:
    runs = {}
    for name, seed in (("first", 0), ("again", 0), ("other", 1)):
        train(
            make_task(steps=3, seed=seed, report_every=1),
            FolderCheckpoints(tmp_path / name),
            runs.setdefault(name, Reports()),
        )
    losses = {name: [row["loss"] for row in run.rows.values()] for name, run in runs.items()}
    assert losses["first"] == losses["again"]
    assert not set(losses["first"]) & set(losses["other"])


def test_train_leaves_random_state_of_caller_unchanged(make_task: MakeTask, checkpoints: FolderCheckpoints) -> None:
    before = torch.get_rng_state()
    train(make_task(steps=2, validate_every=1), checkpoints, Reports())
    assert torch.equal(torch.get_rng_state(), before)


def test_train_bfloat16_keeps_float32_weights(make_task: MakeTask, tmp_path: Path) -> None:
    runs: dict[str, Reports] = {}
    for dtype in ("float32", "bfloat16"):
        folder = FolderCheckpoints(tmp_path / dtype)
        train(make_task(steps=2, dtype=dtype, report_every=1), folder, runs.setdefault(dtype, Reports()))
        found = folder.latest(2)
        assert found
        assert {value.dtype for value in load_file(found[1] / "weights.safetensors").values()} == {torch.float32}
    single, half = (runs[dtype].rows[1]["loss"] for dtype in ("float32", "bfloat16"))
    assert half != single
    assert half == pytest.approx(single, rel=0.02)


def test_train_tf32_on_cpu_warns(make_task: MakeTask, checkpoints: FolderCheckpoints) -> None:
    with pytest.warns(UserWarning, match=r"training\.dtype = 'tf32' is ignored on a cpu"):
        train(make_task(steps=1, dtype="tf32"), checkpoints, Reports(), device="cpu")


def test_load_restorer_is_in_eval_mode_and_without_gradients(
    make_task: MakeTask, checkpoints: FolderCheckpoints, digits: Dataset
) -> None:
    train(make_task(steps=2), checkpoints, Reports())
    raw, average = (restorer(checkpoints, 2, digits, ema=ema) for ema in (False, True))
    assert not raw.training
    assert not any(parameter.requires_grad for parameter in raw.parameters())
    x = torch.zeros(2, *digits.image_shape)
    assert not torch.equal(raw(x, torch.tensor([1, 8])), average(x, torch.tensor([1, 8])))


def test_checkpoint_state_contains_step_and_position(make_task: MakeTask, checkpoints: FolderCheckpoints) -> None:
    train(make_task(steps=5, batch_size=4, accumulate=3), checkpoints, Reports())
    found = checkpoints.latest(5)
    assert found
    state: dict[str, Any] = json.loads((found[1] / "state.json").read_text())
    assert (state["step"], state["position"]) == (5, 5 * 4 * 3)

"""Power-function averages against direct sums over recorded weights, and their lengths against integrals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from scipy.integrate import quad
from training_helpers import InterruptedTrainingError, MakeTask, Reports, unequal

from coldtune.config import identity
from coldtune.training import FolderCheckpoints, TrainingConfig, train
from coldtune.training.power_averages import TRACKS, Tracks, gamma_of, read_average, rebuild, shares, std_of
from coldtune.training.state import EMA, WEIGHTS, TrainingState

STDS = (0.05, 0.1)


@pytest.mark.parametrize("std", [0.01, 0.05, 0.1, 0.25, 0.288])
def test_std_of_average_is_standard_deviation_of_its_density(std: float) -> None:
    gamma = gamma_of(std)

    def moment(power: int) -> float:
        return float(quad(lambda x: (gamma + 1) * x ** (gamma + power), 0, 1, epsabs=1e-13)[0])

    assert moment(0) == pytest.approx(1)
    assert np.sqrt(moment(2) - moment(1) ** 2) == pytest.approx(std, rel=1e-6)
    assert std_of(gamma) == pytest.approx(std, rel=1e-9)


def test_gamma_of_the_papers_two_lengths() -> None:
    """2312.02696 names 16.97 and 6.94 for its lengths 0.05 and 0.10."""
    assert [round(gamma_of(std), 2) for std in STDS] == [16.97, 6.94]


@given(st.floats(0.02, 0.28), st.integers(1, 40), st.integers(0, 39))
@settings(max_examples=50, deadline=None)
def test_shares_sum_to_one_and_any_part_is_a_slice(std: float, step: int, cut: int) -> None:
    gamma, cut = gamma_of(std), min(cut, step)
    whole = shares(gamma, step, 0, step + 3)
    assert whole.sum() == pytest.approx(1)
    assert (whole[step:] == 0).all()
    np.testing.assert_allclose(np.concatenate([shares(gamma, step, 0, cut), shares(gamma, step, cut, step + 3)]), whole)


def recorded(count: int) -> torch.Tensor:
    """Return weights after each of `count` steps: a path towards an optimum, with noise and a jump."""
    generator = torch.Generator().manual_seed(0)
    steps = torch.arange(1, count + 1, dtype=torch.float64)[:, None]
    noise = 0.3 * torch.randn(count, 5, generator=generator, dtype=torch.float64)
    path = torch.exp(-steps / 80) * torch.tensor([3.0, -2.0, 1.0, 0.5, 0.0]) + noise
    path[:, 2] += (steps[:, 0] > 170).double()
    path[:, 4] = 1.5
    return path.float()


def track(path: torch.Tensor, stds: tuple[float, ...], kept: set[int], folder: Path) -> dict[int, Path]:
    """Average a recorded path as a training does, and keep snapshots."""
    weights, folders = torch.zeros(path.shape[1]), {}
    tracks = Tracks(stds, [weights])
    for step, value in enumerate(path, 1):
        weights.copy_(value)
        tracks.update(step)
        if step in kept:
            folders[step] = folder / str(step)
            folders[step].mkdir()
            save_file(tracks.state(["w"]), folders[step] / TRACKS)
    return folders


def average_of(path: torch.Tensor, std: float) -> torch.Tensor:
    """Return the average by its definition: the density (gamma + 1) x^gamma, integrated over each step."""
    count, gamma = len(path), gamma_of(std)
    density = [
        quad(lambda x: (gamma + 1) * x**gamma, i / count, (i + 1) / count, epsabs=1e-14)[0] for i in range(count)
    ]
    return torch.tensor(density, dtype=torch.float64) @ path.double()


def test_tracks_equal_sums_over_recorded_weights(tmp_path: Path) -> None:
    path = recorded(200)
    kept = load_file(track(path, STDS, {200}, tmp_path)[200] / TRACKS)
    for number, std in enumerate(STDS):
        torch.testing.assert_close(kept[f"{number}.w"].double(), average_of(path, std), rtol=0, atol=2e-6)


@pytest.mark.parametrize("std", [0.03, 0.05, 0.07, 0.1, 0.15, 0.2])
def test_rebuilt_average_is_within_its_misplaced_share_of_the_sum(std: float, tmp_path: Path) -> None:
    """A misplaced share moves a weight at most by that share times the range of the weight."""
    path, snapshots = recorded(200), tuple(range(10, 201, 10))
    rebuilding = rebuild(STDS, snapshots, std)
    found = read_average(rebuilding, track(path, STDS, set(snapshots), tmp_path))["w"]
    error = (found.double() - average_of(path, std)).abs()
    spread = (path.amax(0) - path.amin(0)).double()
    assert rebuilding.misplaced < 0.02
    assert (error <= rebuilding.misplaced * spread + 1e-5).all(), (error, rebuilding.misplaced * spread)
    assert found[4] == pytest.approx(1.5, abs=1e-5), "a weight that never changes keeps its value"


def test_read_average_of_several_parameters_equals_the_sum_of_each(tmp_path: Path) -> None:
    rng = torch.Generator().manual_seed(0)
    shapes = {"b.weight": (3, 2, 1), "a.bias": (2,), "c": ()}
    names = [(f"{track}.{name}", shape) for track in (0, 1) for name, shape in shapes.items()]
    kept = {step: {name: torch.randn(shape, generator=rng) for name, shape in names} for step in (4, 8)}
    for step, tensors in kept.items():
        (tmp_path / str(step)).mkdir()
        save_file(tensors, tmp_path / str(step) / TRACKS)
    rebuilding = rebuild(STDS, (4, 8), 0.07)
    found = read_average(rebuilding, {step: tmp_path / str(step) for step in kept})
    assert {name: tuple(value.shape) for name, value in found.items()} == shapes
    for name, value in found.items():
        total = torch.zeros(shapes[name], dtype=torch.float64)
        for (step, number), coefficient in rebuilding.coefficients.items():
            total = total + kept[step][f"{number}.{name}"].double() * coefficient
        assert torch.equal(value, total.float()), name


def test_rebuild_of_kept_length_is_that_track() -> None:
    rebuilding = rebuild(STDS, (100, 200), 0.1)
    assert rebuilding.misplaced < 1e-9
    assert rebuilding.coefficients[200, 1] == pytest.approx(1)


def test_rebuild_more_snapshots_misplace_less() -> None:
    few, many = (rebuild(STDS, tuple(range(every, 301, every)), 0.2).misplaced for every in (60, 15))
    assert many < few / 4


def test_rebuild_in_blocks_equals_rebuild_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = rebuild(STDS, (40, 80, 120), 0.07)
    monkeypatch.setattr("coldtune.training.power_averages._CHUNK", 100)
    parts = rebuild.__wrapped__(STDS, (40, 80, 120), 0.07)
    assert parts.misplaced == pytest.approx(whole.misplaced)
    assert list(parts.coefficients.values()) == pytest.approx(list(whole.coefficients.values()))


def test_train_keeps_averages_of_the_weights_of_each_step(
    make_task: MakeTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path: dict[int, torch.Tensor] = {}
    count_step = TrainingState.count_step

    def recording(self: TrainingState) -> None:
        count_step(self)
        path[self.step] = self._raw[0].detach().clone()

    monkeypatch.setattr(TrainingState, "count_step", recording)
    train(make_task(steps=8, ema_stds=STDS, snapshot_every=3), FolderCheckpoints(tmp_path), Reports())
    assert sorted(folder.name for folder in tmp_path.iterdir()) == [f"step-{step:08d}" for step in (3, 6, 8)]
    weights = torch.stack([path[step] for step in range(1, 9)])
    first = "net.conv_in.weight"
    kept = load_file(tmp_path / "step-00000008" / TRACKS)
    for number, std in enumerate(STDS):
        expected = torch.tensordot(torch.from_numpy(shares(gamma_of(std), 8, 0, 8)), weights.double(), dims=1)
        torch.testing.assert_close(kept[f"{number}.{first}"].double(), expected, rtol=0, atol=1e-6)


def test_train_averages_change_no_weights_and_resume_exactly(make_task: MakeTask, tmp_path: Path) -> None:
    plain, whole, resumed = (FolderCheckpoints(tmp_path / name) for name in ("plain", "whole", "resumed"))
    task = make_task(steps=8, ema_stds=STDS, snapshot_every=3, report_every=1)
    train(make_task(steps=8), plain, Reports())
    train(task, whole, Reports())
    with pytest.raises(InterruptedTrainingError):
        train(task, resumed, Reports(stop_at=5))
    assert train(task, resumed, Reports()).resumed_from == 3
    last = {name: at.folder / "step-00000008" for name, at in (("plain", plain), ("whole", whole), ("again", resumed))}
    for file in (WEIGHTS, EMA):
        assert unequal(load_file(last["plain"] / file), load_file(last["whole"] / file)) == []
    for file in (WEIGHTS, EMA, TRACKS):
        assert unequal(load_file(last["whole"] / file), load_file(last["again"] / file)) == []
    assert not (last["plain"] / TRACKS).exists()


def test_averages_that_are_off_are_no_part_of_the_identity() -> None:
    plain = TrainingConfig()
    assert not {"ema_stds", "snapshot_every"} & set(identity(plain))
    assert TrainingConfig(snapshot_every=100).trajectory() == plain.trajectory(), "snapshots change no training"
    assert TrainingConfig(ema_stds=STDS).trajectory() != plain.trajectory(), "its checkpoints hold more"


@pytest.mark.parametrize("stds", [(0.1, 0.05), (0.1, 0.1), (0.0, 0.1), (0.1, 0.29)])
def test_ema_stds_wrong_lengths_are_refused(stds: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="ema_stds"):
        TrainingConfig(ema_stds=stds)

"""The conformance suite finds faults: each broken degradation fails the check that is about its fault."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorDeviceMismatchError

from coldtune.diffusion import DEGRADATIONS, Degradation, DegradationConfig, Draw, draws
from coldtune.testing import DegradationSuite


class FadeConfig(DegradationConfig):
    kind: str = "fade"


class Fade(Degradation):
    """A sound degradation: a fade to black."""

    config_type: ClassVar[type[DegradationConfig]] = FadeConfig

    def _degrade(self, x0, t, draw):
        return x0 * self.share(x0, t)

    def share(self, x0, t):
        return 1 - t / self.steps if isinstance(t, int) else (1 - t.to(x0.dtype) / self.steps)[:, None, None, None]

    def lost(self, t, draw=None):
        return torch.tensor(t / self.steps, dtype=torch.float64)


class HiddenRandomness(Fade):
    def _degrade(self, x0, t, draw):
        return super()._degrade(x0, t, draw) + 0.01 * torch.rand_like(x0)


class LooksAtItsNeighbours(Fade):
    def _degrade(self, x0, t, draw):
        return super()._degrade(x0, t, draw) + x0.mean(dim=0)


class Jumps(Fade):
    def _degrade(self, x0, t, draw):
        return x0 * 0.0 * self.share(x0, t)


class GivesBack(Fade):
    def lost(self, t, draw=None):
        return super().lost(min(t, self.steps - t))


class Iterates(Fade):
    def _degrade(self, x0, t, draw):
        for _ in range(t if isinstance(t, int) else int(t.max())):
            x0 = x0 * 0.9
        return x0


class RoundsTooEarly(Fade):
    def _degrade(self, x0, t, draw):
        degraded = super()._degrade(x0, t, draw)
        return degraded if x0.dtype == torch.float64 else degraded.to(torch.bfloat16).to(x0.dtype)


class StopsGradients(Fade):
    def _degrade(self, x0, t, draw):
        return super()._degrade(x0, t, draw).detach()


class WaitsForTheGpu(Fade):
    def _degrade(self, x0, t, draw):
        return super()._degrade(x0, t, draw) * (1.0 if x0.sum().item() < 1e9 else 2.0)


class StaysOnTheCpu(Fade):
    def _degrade(self, x0, t, draw):
        return super()._degrade(x0, t, draw) * torch.ones(x0.shape[-1:])


class ForgetsItsState(Fade):
    def __init__(self, config, image_shape, scale=0.5):
        super().__init__(config, image_shape)
        self.scale = scale

    def _degrade(self, x0, t, draw):
        return super()._degrade(x0, t, draw) * self.scale

    def __reduce__(self):
        return type(self), (self.config, self.image_shape, 1.0)


class TakesAnything(Fade):
    def __call__(self, x0, t, draw=None):
        return x0


@dataclass(frozen=True)
class ShiftDraw(Draw):
    shift: torch.Tensor


class Shifted(Fade):
    """A sound random degradation: a fade to a random grey."""

    draw_type: ClassVar[type[Draw]] = ShiftDraw

    def draw(self, seeds):
        return ShiftDraw(draws.uniform(seeds, 0))

    def _draw_shapes(self):
        return {"shift": ()}

    def _degrade(self, x0, t, draw):
        share = self.share(x0, t)
        return share * x0 + (1 - share) * draw.shift[:, None, None, None].to(x0.dtype)


class IgnoresItsSeeds(Shifted):
    def draw(self, seeds):
        return ShiftDraw(torch.zeros(len(seeds)))


class DrawsByBatch(Shifted):
    def draw(self, seeds):
        return ShiftDraw(draws.uniform(seeds[:1], 0, (len(seeds),))[0])


class TestFade(DegradationSuite):
    """Sound degradations pass the suite."""

    settings: ClassVar = {"fade": {"kind": "fade", "steps": 5}, "shifted": {"kind": "shifted", "steps": 5}}

    @pytest.fixture(autouse=True)
    def registered(self, monkeypatch):
        monkeypatch.setitem(DEGRADATIONS, "fade", Fade)
        monkeypatch.setitem(DEGRADATIONS, "shifted", Shifted)


@pytest.mark.parametrize(
    ("broken", "check", "error"),
    [
        (HiddenRandomness, "test_draw_same_degrades_equally", AssertionError),
        (LooksAtItsNeighbours, "test_batch_composition_does_not_change_images", AssertionError),
        (DrawsByBatch, "test_batch_composition_does_not_change_images", AssertionError),
        (IgnoresItsSeeds, "test_draw_other_seeds_differ", AssertionError),
        (Jumps, "test_severity_steps_are_continuous", AssertionError),
        (GivesBack, "test_lost_never_falls", AssertionError),
        (Iterates, "test_severity_never_changes_cost", AssertionError),
        (RoundsTooEarly, "test_precision_follows_images", AssertionError),
        (StopsGradients, "test_gradient_matches_finite_differences", (RuntimeError, AssertionError)),
        (WaitsForTheGpu, "test_gpu_never_waits_for_cpu", DataDependentOutputException),
        (StaysOnTheCpu, "test_gpu_never_waits_for_cpu", FakeTensorDeviceMismatchError),
        (WaitsForTheGpu, "test_compile_makes_one_graph", RuntimeError),
        (ForgetsItsState, "test_yaml_and_pickle_round_trip", AssertionError),
        (TakesAnything, "test_images_invalid_are_refused", pytest.fail.Exception),
        (TakesAnything, "test_draw_invalid_is_refused", pytest.fail.Exception),
    ],
)
def test_suite_broken_degradation_fails_its_check(monkeypatch, broken, check, error):
    suite, config = DegradationSuite(), {"kind": "fade", "steps": 5}
    monkeypatch.setitem(DEGRADATIONS, "fade", broken)
    d = suite.build(config)
    x = draws.uniform(suite.seeds(), 1, suite.image_shape) * 2 - 1
    given = {"config": config, "d": d, "x": x}
    method = getattr(suite, check)
    with pytest.raises(error):
        method(**{name: given[name] for name in inspect.signature(method).parameters})


def test_suite_accepting_any_severity_fails():
    suite, d = DegradationSuite(), TakesAnything(FadeConfig(steps=5), (3, 8, 8))
    with pytest.raises(pytest.fail.Exception):
        suite.test_severity_invalid_is_refused(d, torch.zeros(6, 3, 8, 8), -1)

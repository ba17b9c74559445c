"""The conformance suite for degradations. Subclass `DegradationSuite` and name some settings for it to check."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, ClassVar

import pytest
import torch
import yaml
from torch import Tensor

from coldtune.config import plain
from coldtune.diffusion import Degradation, Draw, build_degradation, draws
from coldtune.testing.operations import fake_gpu, recorded_operations

_SEED = 0


class DegradationSuite:
    """Tests of the promises that every degradation makes.

        class TestPixelate(DegradationSuite):
            settings = {"to 2 px": {"kind": "pixelate", "steps": 3}}

    Every test runs for each of the settings. Override `build` if a degradation needs more than its configuration.

    Attributes:
        settings: Configurations by name. Choose some for every branch of the code, with T from 4 to 20, so that a run
            stays short.
        image_shape: (C, H, W) of the images, which are uniform noise in [-1, 1].
        batch: The number of images.
        largest_step: The share of the mean change from x to D(x, T) that a single step may make, if D is continuous.
            Raise it for a steep schedule with few steps, or set `continuous = False` in the degradation.
        tolerance: How far float32 may be from float64, and batches from each other, in [-1, 1] units. Raise it if the
            degradation sums many terms.

    The draws of the tests are `d.draw(self.seeds())`, a row for each image. A degradation without randomness returns
    None there, and its `draw` argument is None.
    """

    settings: ClassVar[Mapping[str, Mapping[str, Any]]]
    image_shape: ClassVar[tuple[int, int, int]] = (3, 8, 8)
    batch: ClassVar[int] = 6
    largest_step: ClassVar[float] = 0.5
    tolerance: ClassVar[float] = 2e-6

    def build(self, config: Mapping[str, Any]) -> Degradation:
        """Build the degradation under test."""
        return build_degradation(config, self.image_shape)

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Make a test for each of the settings. Pytest calls this hook."""
        if "config" in metafunc.fixturenames:
            metafunc.parametrize("config", self.settings.values(), ids=list(self.settings))

    @pytest.fixture
    def d(self, config: Mapping[str, Any]) -> Degradation:
        """The degradation of the current setting."""
        return self.build(config)

    @pytest.fixture
    def x(self) -> Tensor:
        """Images, float32 (batch, C, H, W)."""
        return draws.uniform(self.seeds(), draws.stream("suite/images"), self.image_shape) * 2 - 1

    def seeds(self) -> Tensor:
        """Return a seed for each image."""
        return draws.derive(_SEED, draws.stream("suite/seeds"), torch.arange(self.batch))

    def severities(self, d: Degradation) -> Tensor:
        """Return a severity for each image, from 0 to T."""
        return torch.linspace(0, d.steps, self.batch).round().to(torch.int64)

    # --- severity 0

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
    def test_severity_0_returns_image_bit_for_bit(self, d: Degradation, x: Tensor, dtype: torch.dtype) -> None:
        """D(x, 0) equals x, alone and among other severities, and is a new tensor."""
        x, draw, t = x.to(dtype), d.draw(self.seeds()), self.severities(d)
        before = x.clone()
        for out in (d(x, 0, draw), d(x, torch.zeros_like(t), draw)):
            assert torch.equal(out, x)
            out.zero_()
        mixed = d(x, t, draw)
        assert torch.equal(mixed[t == 0], x[t == 0])
        mixed.zero_()
        assert torch.equal(x, before)

    # --- dependence on the draw, the seeds and the batch

    def test_draw_same_degrades_equally(self, d: Degradation, x: Tensor) -> None:
        """D is a function of x, t and the draw. Neither D nor drawing touches torch's global generator."""
        state = torch.get_rng_state()
        first, second = d.draw(self.seeds()), d.draw(self.seeds())
        assert_equal_draws(first, second)
        t = self.severities(d)
        assert torch.equal(d(x, t, first), d(x, t, second))
        assert torch.equal(torch.get_rng_state(), state)

    def test_draw_other_seeds_differ(self, d: Degradation, x: Tensor) -> None:
        """`draw` returns None if and only if D is deterministic. Otherwise the draw depends on the seeds."""
        draw, other = d.draw(self.seeds()), d.draw(draws.fold(self.seeds(), 1))
        assert (draw is not None) == d.random
        if draw is not None:
            assert isinstance(draw, d.draw_type)
            equal = torch.equal(d.exact(x, d.steps, draw), d.exact(x, d.steps, other))
            assert not equal, "D(x, T) is the same for two different draws"

    def test_batch_composition_does_not_change_images(self, d: Degradation, x: Tensor) -> None:
        """For any size and order of the batch, draws are equal bit for bit and images are equal up to rounding."""
        t, draw = self.severities(d), d.draw(self.seeds())
        order = torch.tensor([4, 0, 2])
        if d.per_image and draw is not None:
            assert_equal_draws(d.draw(self.seeds()[order]), draw[order])
        together = d.exact(x, t, draw)
        some = d.exact(x[order], t[order], None if draw is None else draw[order])
        assert_near(some, together[order], self.tolerance)
        for i in range(self.batch):
            one = d.exact(x[i : i + 1], int(t[i]), None if draw is None else draw[i : i + 1])
            assert_near(one[0], together[i], self.tolerance)

    # --- severity

    def test_severity_steps_are_continuous(self, d: Degradation, x: Tensor) -> None:
        """If D declares itself continuous, no single step makes most of the mean change from x to D(x, T)."""
        if not d.continuous:
            pytest.skip(f"{d.kind} declares itself not continuous")
        draw = d.draw(self.seeds())
        path = torch.stack([d.exact(x.double(), t, draw) for t in range(d.steps + 1)])
        total, steps = (path[-1] - path[0]).abs().mean(), (path[1:] - path[:-1]).abs().mean(dim=(1, 2, 3, 4))
        assert total > 0, "D(x, T) is x"
        share, limit = float(steps.max() / total), self.largest_step
        step = int(steps.argmax()) + 1
        assert share <= limit, f"step t = {step} makes {share:.3f} of the change; at most largest_step = {limit:g}"

    def test_lost_never_falls(self, d: Degradation) -> None:
        """`lost` is 0 at t = 0, never falls, is positive at T for some image, and never exceeds 1."""
        draw = d.draw(self.seeds())
        shares = [d.lost(t, draw) for t in range(d.steps + 1)]
        known = [share for share in shares if share is not None]
        if not known:
            pytest.skip(f"{d.kind} declares no measure of lost information")
        path = torch.stack(known)
        assert len(path) == d.steps + 1
        assert path.dtype == torch.float64
        assert (path[0] == 0).all(), f"lost(0) = {path[0].tolist()}; must be 0"
        fall = path.diff(dim=0).flatten(1) if path.dim() > 1 else path.diff(dim=0)[:, None]
        least = fall.min(dim=1).values
        assert (least >= -1e-12).all(), f"lost falls by {-float(least.min()):.3g} at t = {int(least.argmin()) + 1}"
        assert (path[-1] <= 1 + 1e-12).all(), f"lost(T) = {float(path[-1].max()):.6g}; at most 1"
        assert (path[-1] > 0).any(), "lost(T) = 0 for every image; must be positive for some image"

    def test_severity_never_changes_cost(self, d: Degradation, x: Tensor) -> None:
        """For every t, the tensor operations and their sizes are those of t = 1, so no severity costs more."""
        draw, t = d.draw(self.seeds()), torch.ones(self.batch, dtype=torch.int64)
        d(x, t, draw), d(x, 1, draw)  # makes the tables
        for severity in {2, d.steps // 2, d.steps} - {0, 1}:
            alone = recorded_operations(d, x, severity, draw), recorded_operations(d, x, 1, draw)
            assert alone[0] == alone[1], f"t = {severity} runs {len(alone[0])} operations, t = 1 {len(alone[1])}"
            assert recorded_operations(d, x, t * severity, draw) == recorded_operations(d, x, t, draw)

    # --- numbers and devices

    def test_precision_follows_images(self, d: Degradation, x: Tensor) -> None:
        """The result has the images' dtype. float32 is float64 rounded, and half precision is float32 rounded once."""
        t, draw = self.severities(d), d.draw(self.seeds())
        exact = d.exact(x.double(), t, draw)
        assert exact.dtype == torch.float64
        assert_near(d.exact(x, t, draw).double(), exact, self.tolerance)
        for dtype in (torch.bfloat16, torch.float16):
            half = x.to(dtype)
            assert d(half, t, draw).dtype == dtype
            assert torch.equal(d(half, t, draw), d(half.float(), t, draw).to(dtype))

    def test_gradient_matches_finite_differences(self, d: Degradation, x: Tensor) -> None:
        """The derivative in x equals finite differences, and it passes straight through `quantize`."""
        t, draw = self.severities(d)[1:4], d.draw(self.seeds()[1:4])
        y = x[1:4, :, :4, :4].double().requires_grad_()

        def crop(y: Tensor) -> Tensor:
            image = x[1:4].double().clone()
            image[:, :, :4, :4] = y
            return d.exact(image, t, draw)

        assert torch.autograd.gradcheck(crop, (y,), fast_mode=True)
        one = x.clone().requires_grad_()
        draw = d.draw(self.seeds())
        weights = 2 * d(x, d.steps, draw)
        straight = torch.autograd.grad((weights * d.exact(one, d.steps, draw)).sum(), one)
        through = torch.autograd.grad(d(one, d.steps, draw).square().sum(), one)
        assert_near(through[0], straight[0], 10 * self.tolerance)

    def test_gpu_never_waits_for_cpu(self, d: Degradation, x: Tensor) -> None:
        """On (fake) CUDA tensors, drawing and degrading stay on the device and read no value, for any t."""
        d(x, 1, d.draw(self.seeds()))  # makes the tables, on the CPU
        with fake_gpu() as device:
            seeds = torch.zeros(self.batch, dtype=torch.int64, device=device)
            x = torch.zeros(self.batch, *self.image_shape, device=device)
            draw = d.draw(seeds)
            for t in (torch.ones_like(seeds), 1, d.steps):
                assert d(x, t, draw).device == x.device

    def test_compile_makes_one_graph(self, d: Degradation, x: Tensor) -> None:
        """`torch.compile(fullgraph=True)` compiles D once for all severities."""
        draw, t = d.draw(self.seeds()), self.severities(d)
        expected = d(x, t, draw)
        torch.compiler.reset()
        compiled = torch.compile(lambda x, t: d(x, t, draw), fullgraph=True, backend="eager")
        assert torch.equal(compiled(x, t), expected)
        assert torch.equal(compiled(x, t.flip(0)), d(x, t.flip(0), draw))

    # --- errors

    @pytest.mark.parametrize("t", [-1, 2.0, True, None])
    def test_severity_invalid_is_refused(self, d: Degradation, x: Tensor, t: Any) -> None:
        """A severity is an integer in 0..T."""
        draw = d.draw(self.seeds())
        for wrong in (t, d.steps + 1, torch.full((self.batch,), d.steps + 1), torch.zeros(self.batch)):
            with pytest.raises(ValueError, match=r"^t "):
                d(x, wrong, draw)

    def test_images_invalid_are_refused(self, d: Degradation, x: Tensor) -> None:
        """Images are floating (B, C, H, W) of the shape for which the degradation was built."""
        draw = d.draw(self.seeds())
        for wrong in (x[0], x[..., 1:], x.to(torch.uint8)):
            with pytest.raises(ValueError, match=r"^x0 of (shape|dtype)"):
                d(wrong, 1, draw)

    def test_draw_invalid_is_refused(self, d: Degradation, x: Tensor) -> None:
        """A draw has the degradation's own type, all fields, and a row for each image."""
        draw = d.draw(self.seeds())
        wrong: list[Any] = [Draw()] if draw is None else [None, Draw(), draw[1:], draw.to("meta")]
        for value in wrong:
            with pytest.raises(ValueError, match=r"^draw"):
                d(x, 1, value)

    # --- round trips

    def test_yaml_and_pickle_round_trip(self, config: Mapping[str, Any], d: Degradation, x: Tensor) -> None:
        """A configuration survives YAML. The rebuilt degradation and a pickled copy degrade equally."""
        t, draw = self.severities(d), d.draw(self.seeds())
        expected = d(x, t, draw)
        again = self.build(yaml.safe_load(yaml.safe_dump(plain(d.config))))
        assert again.config == d.config
        assert_equal_draws(again.draw(self.seeds()), draw)
        assert torch.equal(again(x, t, draw), expected)
        assert torch.equal(pickle.loads(pickle.dumps(d))(x, t, draw), expected)


def assert_near(actual: Tensor | None, expected: Tensor | None, tolerance: float) -> None:
    """Raise AssertionError if any number differs by more than `tolerance`, absolutely."""
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance)


def assert_equal_draws(actual: Draw | None, expected: Draw | None) -> None:
    """Raise AssertionError unless both are None, or both have the same type and equal fields, bit for bit."""
    assert type(actual) is type(expected)
    for field in fields(expected) if expected is not None else ():
        torch.testing.assert_close(getattr(actual, field.name), getattr(expected, field.name), rtol=0, atol=0)

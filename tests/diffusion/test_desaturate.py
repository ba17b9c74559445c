"""Desaturation against A.4's mixing matrices."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch

from coldtune.diffusion import build_degradation
from coldtune.testing import DegradationSuite

CONFIG = {"kind": "desaturate", "steps": 10}


class TestDesaturate(DegradationSuite):
    settings: ClassVar = {"linear": CONFIG, "8 bit": CONFIG | {"quantize": True}}


class TestDesaturateTwoChannels(DegradationSuite):
    settings: ClassVar = {"linear": CONFIG}
    image_shape = (2, 5, 4)


def images(dtype=torch.float64):
    return torch.rand(4, 3, 6, 5, dtype=dtype, generator=torch.Generator().manual_seed(0)) * 2 - 1


def mixing(alpha):
    """Return z(alpha) of A.4, whose rows are the three filters."""
    return alpha * torch.full((3, 3), 1 / 3, dtype=torch.float64) + (1 - alpha) * torch.eye(3, dtype=torch.float64)


def test_desaturate_equals_filter_of_paper():
    d, x = build_degradation(CONFIG, (3, 6, 5)), images()
    for t in range(11):
        torch.testing.assert_close(d(x, t), torch.einsum("ij,bjhw->bihw", mixing(t / 10), x))


def test_desaturate_equals_sequence_of_filters_of_paper():
    """z(t/T) is z(alpha_t) after z((t-1)/T) with 1 - alpha_t = (T-t)/(T-t+1)."""
    d, x = build_degradation(CONFIG, (3, 6, 5)), images()
    for t in range(1, 11):
        step = mixing(1 - (10 - t) / (10 - t + 1))
        torch.testing.assert_close(d(x, t), torch.einsum("ij,bjhw->bihw", step, d(x, t - 1)))


def test_desaturate_ends_grey_with_equal_brightness():
    d, x = build_degradation(CONFIG, (3, 6, 5)), images(torch.float32)
    grey = d(x, 10)
    assert torch.equal(grey, grey[:, :1].expand_as(grey))
    for t in range(11):
        torch.testing.assert_close(d(x, t).mean(1), x.mean(1))


def test_desaturate_grey_images_are_refused():
    with pytest.raises(ValueError, match=r"'desaturate': images of shape \(1, 8, 8\) have no colour"):
        build_degradation(CONFIG, (1, 8, 8))

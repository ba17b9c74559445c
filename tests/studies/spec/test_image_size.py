"""Warnings about settings in pixels that were written for another image size."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import yaml

from coldtune import presets
from coldtune.diffusion import DEGRADATIONS, leftover_of
from coldtune.dotted import set_key
from coldtune.studies.designs.paper_table import build_table_study
from coldtune.studies.spec.build import build_spec

SPACES = Path(__file__).parents[3] / "search_spaces"


def _warnings(space: Path, *settings: str) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        build_spec("job", space, settings=settings)
    return [str(warning.message) for warning in caught]


def _write(folder: Path, **tree: Any) -> Path:
    path = folder / "space.yaml"
    path.write_text(yaml.safe_dump({"vary": {"training.lr": {"low": 0.001, "high": 0.002}}, **tree}))
    return path


def _proposed(message: str) -> dict[str, float]:
    """Return the settings that a warning proposes."""
    pairs = re.findall(r"degradation\.([\w.]+)(?:=|: )([\d.e-]*\d)", message.partition("For the same")[2])
    return {key: float(value) for key, value in pairs}


def _with(degradation: dict[str, Any], settings: dict[str, float]) -> dict[str, Any]:
    tree = {"degradation": yaml.safe_load(yaml.safe_dump(degradation))}
    for key, value in settings.items():
        set_key(tree, f"degradation.{key}", int(value) if key in ("kernel_size", "steps") else value)
    return tree["degradation"]


def test_image_size_blur_warning_has_both_ends_and_the_setting_that_keeps_the_end() -> None:
    (message,) = _warnings(SPACES / "blur.yaml", "data.image_size=32")
    blur = presets.load("digits-quick")["degradation"]
    before, after = (leftover_of(blur, (1, size, size)) for size in (16, 32))
    assert f"leaves {after:.2g} of the slowest mode at T instead of {before:.2g} at 16 px" in message
    assert "easier question" in message
    assert set(_proposed(message)) == {"sigma.start"}
    assert leftover_of(_with(blur, _proposed(message)), (1, 32, 32)) == pytest.approx(before, rel=1e-4)
    assert not _warnings(SPACES / "blur.yaml", "data.image_size=32", "degradation.sigma.start=1.49618")
    assert "harder question" in _warnings(SPACES / "blur.yaml", "data.image_size=8")[0]


def test_image_size_unchanged_or_a_degradation_without_lengths_is_silent(tmp_path: Path) -> None:
    assert not _warnings(SPACES / "blur.yaml", "data.image_size=16", "degradation.steps=30")
    base = presets.load("digits-quick") | {"degradation": {"kind": "noise", "steps": 5, "schedule": "cosine"}}
    assert not _warnings(_write(tmp_path, base=base), "data.image_size=32")


def test_image_size_changed_steps_are_compared_at_both_sizes() -> None:
    """Only the effect of the image size is reported, not that of another setting."""
    (message,) = _warnings(SPACES / "blur.yaml", "data.image_size=32", "degradation.steps=10")
    blur = presets.load("digits-quick")["degradation"] | {"steps": 10}
    assert f"instead of {leftover_of(blur, (1, 16, 16)):.2g} at 16 px" in message


def test_image_size_start_alone_out_of_reach_proposes_all_lengths() -> None:
    (message,) = _warnings(SPACES / "blur.yaml", "data.image_size=64")
    blur, proposed = presets.load("digits-quick")["degradation"], _proposed(message)
    assert set(proposed) == {"sigma.start", "kernel_size"}
    expected = leftover_of(blur, (1, 16, 16))
    assert leftover_of(_with(blur, proposed), (1, 64, 64)) == pytest.approx(expected, rel=1e-4)
    assert "The space varies degradation.kernel_size" in message


def test_image_size_mask_and_snow_and_downsample_warn(tmp_path: Path) -> None:
    (message,) = _warnings(SPACES / "mask.yaml", "data.image_size=32")
    mask = yaml.safe_load((SPACES / "mask.yaml").read_text())["base"]["degradation"]
    before = leftover_of(mask, (1, 16, 16))
    assert f"of an image at T instead of {before:.2g} at 16 px" in message
    assert leftover_of(_with(mask, _proposed(message)), (1, 32, 32)) == pytest.approx(before, rel=1e-4)
    ranges = {"threshold": {"start": 1.15, "end": 0.7}, "motion_sigma": {"start": 0.05, "end": 16}}
    snow = presets.load("digits-quick") | {"degradation": {"kind": "snow", "steps": 5, **ranges}}
    (message,) = _warnings(_write(tmp_path, base=snow), "data.image_size=32")
    assert _proposed(message) == {"motion_sigma.start": 0.1, "motion_sigma.end": 32}
    down = presets.load("digits-quick") | {"degradation": {"kind": "downsample", "steps": 3, "method": "area"}}
    (message,) = _warnings(_write(tmp_path, base=down), "data.image_size=32")
    assert "ends at 4x4 instead of 2x2" in message
    assert _proposed(message) == {"steps": 4}


def test_image_size_end_without_leftover_proposes_the_same_shares() -> None:
    """A blur that collapses leaves nothing at any size, but its path has lengths."""
    first, mask, down = _warnings(SPACES / "degradations.yaml", "data.image_size=32")
    assert _proposed(first) == {"kernel_size": 13, "sigma.start": 1}
    assert "variants.mask" in mask
    assert _proposed(mask) == {"beta.start": 0.4}
    assert "variants.downsample ends at 4x4" in down
    assert _proposed(down) == {"steps": 4}


def test_image_size_derived_number_keeps_the_end(tmp_path: Path) -> None:
    derive = {"degradation.sigma.start": {"hold": "leftover", "at": 0.3}}
    space = _write(tmp_path, base="digits-quick", derive=derive)
    assert not _warnings(space, "data.image_size=32")


def test_image_size_crop_is_a_length(tmp_path: Path) -> None:
    base = presets.load("digits-quick")
    base["data"]["crop_pad"] = 2
    messages = _warnings(_write(tmp_path, base=base), "data.image_size=32")
    assert any("--set data.crop_pad=4." in message for message in messages)


def test_image_size_table_of_the_paper_warns() -> None:
    with pytest.warns(UserWarning, match=r"data\.image_size = 32: the blur leaves"):
        build_table_study("1", "digits", "quick", settings=["data.image_size=32"])


def test_lengths_are_keys_of_every_kind() -> None:
    """A new degradation with a length of its own is reminded of `lengths` by its units in the docstring."""
    for kind, degradation in DEGRADATIONS.items():
        assert ("in pixels" in (degradation.config_type.__doc__ or "")) == (kind in ("blur", "mask", "snow")), kind

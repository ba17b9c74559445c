"""Warnings about settings in pixels that were written for another image size than the study's."""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from coldtune.config import parse
from coldtune.data import DataConfig
from coldtune.diffusion import STARTS, OutOfReachError, degradation_config, leftover_of, start_for_leftover
from coldtune.dotted import get_key, set_key
from coldtune.studies.space.config import SpaceConfig

NOTICEABLE = 0.01
"""The relative difference of two leftovers above which the ends of two degradations are not equal."""

_LEFT = {"blur": "of the slowest mode", "mask": "of an image"}
_DEFAULT = DataConfig().image_size


def warn_of_image_size(written: Mapping[str, Any], base: Mapping[str, Any], space: SpaceConfig | None = None) -> None:
    """Warn if the image size was changed, but not the settings in pixels that were chosen for the size before.

    The weaker the end of a degradation, the easier the question, and the better every conditional FID. A warning shows
    both ends, and the settings that keep the end.

    Args:
        written: The base as its preset or its space writes it.
        base: The base after the changes of the command line.
        space: The space around the base. Its variants are checked too.
    """
    before, after = _image_size(written), _image_size(base)
    if before == after or before is None or after is None:
        return
    varied = set(space.vary) if space else set()
    found = _degradations_of_variants(base["degradation"], space)
    if _as_written(written.get("degradation") or {}, base["degradation"]):
        found = {"degradation": base["degradation"], **found}
    lines = [
        describe_end(degradation, before, after, varied, where)
        for where, degradation in found.items()
        if not _is_held(degradation, space)
    ]
    crop = get_key(base, "data.crop_pad")
    if crop and crop == get_key(written, "data.crop_pad"):
        lines.append(
            f"data.crop_pad = {crop} was chosen for images of {before} px. For the same share of the image, add --set "
            f"data.crop_pad={max(round(crop * after / before), 1)}."
        )
    for line in filter(None, lines):
        warnings.warn(f"data.image_size = {after}: {line}", stacklevel=3)


def _image_size(tree: Mapping[str, Any]) -> int | None:
    """Return the image size of a configuration. None if it is not valid, which another check says if it matters."""
    try:
        return parse(DataConfig, {"image_size": get_key(tree, "data.image_size") or _DEFAULT}).image_size
    except ValueError:
        return None


def describe_end(
    degradation: Mapping[str, Any], before: int, after: int, varied: Collection[str] = (), where: str = "degradation"
) -> str:
    """Return a warning if a degradation ends elsewhere, or grows otherwise, at another image size, else "".

    Args:
        degradation: The degradation.
        before: The image size, in pixels, for which its settings were chosen.
        after: The image size of the study.
        varied: The dotted keys that the search varies.
        where: The place of the degradation in the user's configuration.
    """
    try:
        parsed = degradation_config(degradation)
        ends = [_left(degradation, size) for size in (before, after)]
    except ValueError:  # the degradation fits only one of the sizes, and another check says so
        return ""
    if parsed.kind == "downsample":
        return _describe_resolution(parsed.steps, before, after, varied, where)
    lengths = {key: get_key(degradation, key) for key in parsed.lengths() if f"degradation.{key}" not in varied}
    scaled = {key: _scaled(key, value, after / before) for key, value in lengths.items()}
    if not max(ends):  # nothing is left at either size, or this kind of degradation has no leftover
        if not lengths:
            return ""
        named = ", ".join(f"{key} = {value:g}" for key, value in lengths.items())
        return (
            f"{named}{_of(where)} were chosen for images of {before} px. For the same shares of the image, "
            f"{_settings(scaled, where)}."
        )
    if abs(ends[1] - ends[0]) <= NOTICEABLE * max(ends):
        return ""
    advice = _advice(degradation, before, after, varied, where)
    return (
        f"the {parsed.kind}{_of(where)} leaves {ends[1]:.2g} {_LEFT[parsed.kind]} at T instead of {ends[0]:.2g} at "
        f"{before} px, because its lengths are in pixels. {_question(ends)} {advice}"
    )


def _of(where: str) -> str:
    return "" if where == "degradation" else f" of {where}"


def _question(ends: Sequence[float]) -> str:
    return f"That is {'an easier' if ends[1] > ends[0] else 'a harder'} question."


def _advice(degradation: Mapping[str, Any], before: int, after: int, varied: Collection[str], where: str) -> str:
    """Return a sentence with settings that leave as much at the new size: the start alone, or else all lengths."""
    kind = degradation["kind"]
    start, left = STARTS[kind][0], _left(degradation, before)
    lengths = {key: get_key(degradation, key) for key in degradation_config(degradation).lengths()}
    scaled = {key: _scaled(key, value, after / before) for key, value in lengths.items() if key != start}
    for others in ({}, scaled):
        tree = _copy(degradation)
        for key, value in others.items():
            set_key(tree, key, value)
        try:
            settings = {**others, start: start_for_leftover(tree, (1, after, after), left)}
        except (OutOfReachError, ValueError):
            continue
        also = [f"degradation.{key}" for key in settings if f"degradation.{key}" in varied]
        ranges = f" The space varies {', '.join(also)}, so its ranges must change too." if also else ""
        return f"For the same end, {_settings(settings, where)}.{ranges}"
    return f"No {start} leads to the same end. Take more steps or a smaller image."


def _is_held(degradation: Mapping[str, Any], space: SpaceConfig | None) -> bool:
    """Return True if the space derives the start from a given leftover, which holds the end at every image size."""
    start = STARTS.get(degradation["kind"])
    derive = space.derive.get(f"degradation.{start[0]}") if space and start else None
    return derive is not None and derive.at != "base"


def _as_written(written: Mapping[str, Any], degradation: Mapping[str, Any]) -> bool:
    """Return True if the lengths that decide the end are those of the preset, and not the user's own choice."""
    kind = degradation["kind"]
    keys = [STARTS[kind][0]] if kind in STARTS else ["steps", *degradation_config(degradation).lengths()]
    return all(get_key(written, key) == get_key(degradation, key) for key in ("kind", *keys))


def _degradations_of_variants(base: Mapping[str, Any], space: SpaceConfig | None) -> dict[str, dict[str, Any]]:
    """Return the degradations of variants that write lengths of their own, by their place in the space."""
    found = {}
    for name, changes in (space.variants if space else {}).items():
        tree: dict[str, Any] = {"degradation": _copy(base)}
        for key, value in changes.items():
            if key.partition(".")[0] == "degradation":
                set_key(tree, key, _copy(value))
        try:
            keys = ("kind", "steps", *degradation_config(tree["degradation"]).lengths())
        except (ValueError, AttributeError):  # another check names the mistake
            continue
        if any(get_key(tree["degradation"], key) != get_key(base, key) for key in keys):
            found[f"variants.{name}"] = tree["degradation"]
    return found


def _copy(value: Any) -> Any:
    return {key: _copy(item) for key, item in value.items()} if isinstance(value, Mapping) else value


def _left(degradation: Mapping[str, Any], size: int) -> float:
    """Return the leftover at an image size, 0 if this kind of degradation has none."""
    return leftover_of(degradation, (1, size, size)) if degradation["kind"] in STARTS else 0.0


def _scaled(key: str, value: float, factor: float) -> float:
    """Return a length at another image size. The size of a kernel stays odd."""
    if key == "kernel_size":
        return max(2 * round((value * factor - 1) / 2) + 1, 3)
    return float(f"{value * factor:.6g}")


def _settings(settings: Mapping[str, float], where: str) -> str:
    """Return what to write, on the command line or into a variant of the space's file."""
    if where == "degradation":
        return "add --set " + " ".join(f"degradation.{key}={value:g}" for key, value in settings.items())
    return "write there " + ", ".join(f"degradation.{key}: {value:g}" for key, value in settings.items())


def _describe_resolution(steps: int, before: int, after: int, varied: Collection[str], where: str) -> str:
    ends = before >> steps, after >> steps
    if ends[0] == ends[1]:
        return ""
    factor = after // ends[0] if ends[0] and after % ends[0] == 0 else 0
    if factor > 1 and factor & (factor - 1) == 0:
        advice = f"For the same end, {_settings({'steps': int(math.log2(factor))}, where)}."
        if "degradation.steps" in varied and where == "degradation":
            advice += " The space varies degradation.steps, so its range must change too."
    else:
        advice = "No number of steps leads to the same end."
    return (
        f"the downsample{_of(where)} ends at {ends[1]}x{ends[1]} instead of {ends[0]}x{ends[0]} at {before} px. "
        f"{_question(ends)} {advice}"
    )

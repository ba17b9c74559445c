"""The same images of the base, the best setting and the runner-up, their differences and their sampling paths."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from optuna.trial import FrozenTrial
from PIL import Image
from torch import Tensor

from coldtune.metrics.protocol import Protocol
from coldtune.reports.matrix import animated, colours, difference
from coldtune.reports.page.document import MorePictures, Pictures, Strip
from coldtune.reports.pictures import to_pixels
from coldtune.studies.progress.report.content import StudyContent
from coldtune.studies.storage.record import TrialRecord
from coldtune.studies.storage.settings import Setting
from coldtune.studies.trials.reading import find_dataset
from coldtune.studies.trials.stored_images import originals, sampled_images, sampling_path

_COUNT = 8  # images of a setting
_LOSSLESS = 64  # pixels: the largest side of images that are kept as they are
_LARGEST = 128  # pixels: larger images are made smaller
_QUALITY = 80
_FRAMES = 12  # of a sampling path, at most
_MOVING = 4  # images of a sampling path that moves


@dataclass(frozen=True)
class _Shown:
    """A setting that is shown, and the images of its first training: uint8 (B, C, H, W)."""

    role: str
    said: str
    trial: FrozenTrial
    images: Tensor

    @property
    def label(self) -> str:
        return f"{self.role}: {self.said}"

    @property
    def name(self) -> str:
        return f"{self.role}, {self.said}"


def show_pictures(content: StudyContent) -> Pictures | None:
    """Return the pictures, or why there are none. None if nothing has finished."""
    chosen = _chosen(content)
    if not chosen:
        return None
    records = (TrialRecord.of(trial) for _, _, trial in chosen)
    protocol = next((record.judged_under for record in records if record.protocol), None)
    shown: list[_Shown] = []
    for role, setting, trial in chosen:
        images = sampled_images(content.reader, trial, _COUNT)
        if images is not None and (not shown or images.shape == shown[0].images.shape):
            shown.append(_Shown(role, content.describe(setting), trial, images))
    if not shown or protocol is None:
        return Pictures("The images of the base and of the best are no longer in the store.")
    strips = [_strip(each.label, f"Images of {each.name}", each.images) for each in shown]
    more = []
    clean = _originals(content, protocol)
    if clean is not None and clean.shape == shown[0].images.shape:
        strips.insert(0, _strip("originals", "The originals of the images below", clean))
        more.append(_differences(shown, clean))
    if (paths := _paths(content, shown)) is not None:
        more.append(paths)
    note = f"Each row shows the same {len(shown[0].images)} images of {protocol.dataset}/{protocol.split}"
    note += ", restored." if protocol.task == "restored" else ", generated."
    if content.reader.replicated:
        note += " They are those of the first training of each setting."
    return Pictures(note, tuple(strips), tuple(more))


def _differences(shown: Sequence[_Shown], clean: Tensor) -> MorePictures:
    """Return maps of the differences to the originals, all with the same colours."""
    maps = [difference(each.images, clean) for each in shown]
    scale = max(*(float(each.abs().max()) for each in maps), 1 / 255)
    note = (
        "Image - original, the mean over the channels on a scale of 0 to 1. Red is brighter and blue darker than the "
        f"original, and the full colour is a difference of {scale:.2f}."
    )
    return MorePictures("Differences to the originals", note, tuple(
        _strip(each.label, f"Differences of {each.name}, to the originals", colours(values, scale))
        for each, values in zip(shown, maps, strict=True)
    ))  # fmt: skip


def _paths(content: StudyContent, shown: Sequence[_Shown]) -> MorePictures | None:
    """Return the sampling paths from x_T to x_0. None if no sampler took several steps, or the store has no path."""
    strips, moving = [], []
    for each in shown:
        path = sampling_path(content.reader, each.trial, _MOVING)
        if len(path) < 2:  # direct restoration has no path
            continue
        frames = [path[round(k * (len(path) - 1) / (_FRAMES - 1))] for k in range(_FRAMES)]
        seen = list(dict(frames).items())
        alt = f"of {each.name}, from s = {seen[0][0]} to s = {seen[-1][0]}"
        strips.append(_strip(each.label, f"Sampling path {alt}", torch.cat([images[:1] for _, images in seen])))
        moving.append(_moving(each.label, f"Animated sampling path {alt}", [images for _, images in frames]))
    if not strips:
        return None
    note = f"The first image while it is sampled, from x_T on the left to x_0. At most {_FRAMES} steps are shown."
    return MorePictures("Sampling paths", note, tuple(strips), tuple(moving))


def _moving(label: str, alt: str, frames: Sequence[Tensor]) -> Strip:
    """Return an animated PNG of images side by side."""
    sheets = [_sheet(images, _LOSSLESS) for images in frames]
    data = base64.b64encode(animated(sheets)).decode("ascii")
    return Strip(label, alt, "image/png", sheets[0].width, sheets[0].height, data)


def _chosen(content: StudyContent) -> list[tuple[str, Setting, FrozenTrial]]:
    """Return the base, the best and the runner-up with their roles. A setting with two roles is there once."""
    roles: dict[int, list[str]] = {}
    settings: dict[int, Setting] = {}
    for role, setting in _roles(content):
        roles.setdefault(setting.number, []).append(role)
        settings[setting.number] = setting
    return [(" and ".join(roles[number]), each, content.first(each)) for number, each in settings.items()]


def _roles(content: StudyContent) -> Iterator[tuple[str, Setting]]:
    if content.base is not None and content.base.finished:
        yield "base", content.base
    if len(content.spec.objectives) > 1:
        for setting in content.reader.front()[:3]:
            yield "front", setting
        return
    yield from zip(("best", "runner-up"), (setting for setting, _ in content.leaders), strict=False)


def _originals(content: StudyContent, protocol: Protocol) -> Tensor | None:
    try:
        dataset = find_dataset(content.folder, content.spec, content.start["fingerprint"])
    except ValueError:  # it was removed from the home
        return None
    return originals(dataset, protocol, _COUNT)


def _strip(label: str, alt: str, images: Tensor) -> Strip:
    """Return images side by side. Small images keep their pixels, and large ones become smaller and lossy."""
    sheet, file = _sheet(images, _LARGEST), io.BytesIO()
    media = "png" if max(images.shape[-2:]) <= _LOSSLESS else "webp"
    sheet.save(file, media, **({"optimize": True} if media == "png" else {"quality": _QUALITY, "method": 4}))
    data = base64.b64encode(file.getvalue()).decode("ascii")
    return Strip(label, alt, f"image/{media}", sheet.width, sheet.height, data)


def _sheet(images: Tensor, largest: int) -> Image.Image:
    """Return images side by side, made smaller if a side is longer than `largest` pixels."""
    pictures = [Image.fromarray(pixels) for pixels in to_pixels(images)]
    side = max(pictures[0].size)
    if side > largest:
        width, height = (max(1, round(length * largest / side)) for length in pictures[0].size)
        pictures = [picture.resize((width, height), Image.Resampling.LANCZOS) for picture in pictures]
    width, height = pictures[0].size
    gap = max(1, width // 16)
    sheet = Image.new("RGBA", (len(pictures) * (width + gap) - gap, height))
    for place, picture in enumerate(pictures):
        sheet.paste(picture, (place * (width + gap), 0))
    return sheet

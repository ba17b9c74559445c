"""The same images of the base, the best setting and the runner-up."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator

from optuna.trial import FrozenTrial
from PIL import Image
from torch import Tensor

from coldtune.metrics.protocol import Protocol
from coldtune.reports.page.document import Pictures, Strip
from coldtune.reports.pictures import to_pixels
from coldtune.studies.progress.report.content import StudyContent
from coldtune.studies.storage.record import TrialRecord
from coldtune.studies.storage.settings import Setting
from coldtune.studies.trials.reading import find_dataset
from coldtune.studies.trials.stored_images import originals, sampled_images

_COUNT = 8  # images of a setting
_LOSSLESS = 64  # pixels: the largest side of images that are kept as they are
_LARGEST = 128  # pixels: larger images are made smaller
_QUALITY = 80


def show_pictures(content: StudyContent) -> Pictures | None:
    """Return the pictures, or why there are none. None if nothing has finished."""
    chosen = _chosen(content)
    if not chosen:
        return None
    records = (TrialRecord.of(trial) for _, _, trial in chosen)
    protocol = next((record.judged_under for record in records if record.protocol), None)
    shown: list[tuple[str, str, Tensor]] = []
    for role, setting, trial in chosen:
        images = sampled_images(content.reader, trial, _COUNT)
        if images is not None and (not shown or images.shape == shown[0][2].shape):
            shown.append((role, content.describe(setting), images))
    if not shown or protocol is None:
        return Pictures("The images of the base and of the best are no longer in the store.")
    strips = [_strip(f"{role}: {said}", f"Images of {role}, {said}", images) for role, said, images in shown]
    clean = _originals(content, protocol)
    if clean is not None and clean.shape == shown[0][2].shape:
        strips.insert(0, _strip("originals", "The originals of the images below", clean))
    note = f"Each row shows the same {len(shown[0][2])} images of {protocol.dataset}/{protocol.split}"
    note += ", restored." if protocol.task == "restored" else ", generated."
    if content.reader.replicated:
        note += " They are those of the first training of each setting."
    return Pictures(note, tuple(strips))


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
    pictures = [Image.fromarray(pixels) for pixels in to_pixels(images)]
    side = max(pictures[0].size)
    if side > _LARGEST:
        width, height = (max(1, round(length * _LARGEST / side)) for length in pictures[0].size)
        pictures = [picture.resize((width, height), Image.Resampling.LANCZOS) for picture in pictures]
    width, height = pictures[0].size
    gap = max(1, width // 16)
    sheet = Image.new("RGBA", (len(pictures) * (width + gap) - gap, height))
    for place, picture in enumerate(pictures):
        sheet.paste(picture, (place * (width + gap), 0))
    file = io.BytesIO()
    media = "png" if side <= _LOSSLESS else "webp"
    sheet.save(file, media, **({"optimize": True} if media == "png" else {"quality": _QUALITY, "method": 4}))
    data = base64.b64encode(file.getvalue()).decode("ascii")
    return Strip(label, alt, f"image/{media}", sheet.width, sheet.height, data)

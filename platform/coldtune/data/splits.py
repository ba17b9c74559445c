"""Splits and order of a dataset: functions of each image as published, never of file order.

An image's hash decides its split and its place in it, so that shuffled or re-packed files, another image size or
another machine give the same image the same index, and equal images are never on both sides of a split of our making.
It is that of its pixels; where each image comes as an encoded file, that of the file, because decoders differ by a
level here and there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

import numpy as np
import numpy.typing as npt

from coldtune.data.source import Part

SPLITS = ("train", "validation", "test")
HELD_OUT = 10_000
"""Validation images held out of a published training set of 50,000 or more; of a smaller one, a fifth."""
_VALIDATION_FROM, _TEST_FROM = 0.6, 0.8


def assign(raw: Mapping[str, Part]) -> dict[str, tuple[str, npt.NDArray[np.int64]]]:
    """Which images of `raw` make up each split: {split: (part of raw, indices into it, in canonical order)}.

    One part "all" is cut where the hash, read as a number in [0, 1), passes 0.6 and 0.8. Parts "train" and "test" keep
    the published test set whole; validation is the first `HELD_OUT` images of train in hash order (a fifth of a train
    set below 50,000). A group of equal images that does not fit in stays in train. Three published parts stay as they
    are.
    Raises ValueError where a split would be empty.
    """
    hashes = {part: data.hashes() for part, data in raw.items()}
    order = {part: canonical_order(hashes[part], raw[part].labels) for part in raw}
    if set(raw) == {"all"}:
        places = np.array([_place(hashes["all"][i]) for i in order["all"]])
        cuts = {
            "train": places < _VALIDATION_FROM,
            "validation": (places >= _VALIDATION_FROM) & (places < _TEST_FROM),
            "test": places >= _TEST_FROM,
        }
        chosen = {split: ("all", order["all"][mask]) for split, mask in cuts.items()}
    elif set(raw) == set(SPLITS):
        chosen = {split: (split, order[split]) for split in SPLITS}
    else:
        assert set(raw) == {"train", "test"}, sorted(raw)
        held = _held_out(hashes["train"], order["train"])
        chosen = {
            "train": ("train", order["train"][~held]),
            "validation": ("train", order["train"][held]),
            "test": ("test", order["test"]),
        }
    for split, (_, indices) in chosen.items():
        if not len(indices):
            counts = ", ".join(f"{len(data.labels)} in {part}" for part, data in raw.items())
            raise ValueError(f"split {split} would be empty: too few images ({counts})")
    return chosen


def canonical_order(hashes: Sequence[bytes], labels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Indices that sort images by hash; equal images by label, so that not even their order is the files'."""
    return np.array(sorted(range(len(hashes)), key=lambda i: (hashes[i], int(labels[i]))), dtype=np.int64)


def _place(digest: bytes) -> float:
    """The hash as a number in [0, 1)."""
    return int.from_bytes(digest[:6], "big") / 2**48


def _held_out(hashes: Sequence[bytes], order: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Mask over `order`: the images that go to validation, whole groups of equal images, as many as wanted."""
    wanted = min(HELD_OUT, len(order) // 5)
    held = np.zeros(len(order), dtype=np.bool_)
    start = taken = 0
    for _, group in groupby(order, key=lambda i: hashes[i]):
        size = len(list(group))
        if taken + size <= wanted:
            held[start : start + size] = True
            taken += size
        start += size
        if taken == wanted:
            break
    return held

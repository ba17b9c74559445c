"""The splits of a dataset and the order of the images in them, which depend on the images and never on file order.

The hash of an image decides its split and its index in the split. So an image has the same index if the files are
shuffled or re-packed, at every image size and on every machine. Equal images are never on both sides of a split that is
made here. The hash is that of the pixels. If an image is published as an encoded file, it is the hash of the file,
because decoders can differ by a grey level.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import groupby

import numpy as np
import numpy.typing as npt

from coldtune.data.source import Part

SPLITS = ("train", "validation", "test")
HELD_OUT = 10_000
"""The number of validation images that are taken out of a training set of 50,000 or more. Out of a smaller set, a fifth
is taken.
"""
_VALIDATION_FROM, _TEST_FROM = 0.6, 0.8


def assign(
    raw: Mapping[str, Part], hashes: Mapping[str, Sequence[bytes]] | None = None
) -> dict[str, tuple[str, npt.NDArray[np.int64]]]:
    """Assign the images of the published parts to the splits.

    - The part "all" alone is cut at 0.6 and 0.8 of the hash, read as a number in [0, 1).
    - Beside the part "all", "validation" or "test" is kept whole, and "all" is cut at 0.8 into the other two. An image
      that is added to any part moves no other image.
    - Of the parts "train" and "test", the test set is kept whole. Validation is the first `HELD_OUT` images of train in
      hash order, or a fifth if train has fewer than 50,000. A group of equal images that does not fit into validation
      stays in train.
    - The parts "train", "validation" and "test" are kept as they are.

    Args:
        raw: The published parts.
        hashes: The hash of each image, if they are known already.

    Returns:
        {split: (part of `raw`, indices into it in canonical order)}.

    Raises:
        ValueError: If a split would be empty.
    """
    hashes = hash_parts(raw) if hashes is None else hashes
    order = {part: canonical_order(hashes[part], raw[part].labels) for part in raw}
    if "all" in raw:
        chosen = _cut_all(hashes["all"], order)
    elif set(raw) == set(SPLITS):
        chosen = {split: (split, order[split]) for split in SPLITS}
    else:
        assert set(raw) == {"train", "test"}, sorted(raw)
        held = _validation_mask(hashes["train"], order["train"])
        chosen = {
            "train": ("train", order["train"][~held]),
            "validation": ("train", order["train"][held]),
            "test": ("test", order["test"]),
        }
    for split, (_, indices) in chosen.items():
        if not len(indices):
            counts = ", ".join(f"{len(data.labels)} in {part}" for part, data in raw.items())
            if (different := len({each for part in hashes.values() for each in part})) < sum(map(len, hashes.values())):
                counts += f", {different} of them different"
            raise ValueError(f"split {split} would be empty: too few images ({counts})")
    return chosen


def _cut_all(
    hashes: Sequence[bytes], order: Mapping[str, npt.NDArray[np.int64]]
) -> dict[str, tuple[str, npt.NDArray[np.int64]]]:
    """Cut the part "all" by its hashes into the splits that are no parts themselves."""
    position = np.array([_unit_interval(hashes[i]) for i in order["all"]])
    kept = set(order) - {"all"}
    assert kept <= {"validation", "test"}, kept
    assert len(kept) < 2, kept
    begins = [0.0, _TEST_FROM] if kept else [0.0, _VALIDATION_FROM, _TEST_FROM]
    ends = [*begins[1:], 1.0]
    cut = iter(zip(begins, ends, strict=True))
    chosen = {}
    for split in SPLITS:
        if split in kept:
            chosen[split] = (split, order[split])
        else:
            begin, end = next(cut)
            chosen[split] = ("all", order["all"][(position >= begin) & (position < end)])
    return chosen


def hash_parts(raw: Mapping[str, Part]) -> dict[str, list[bytes]]:
    """Return the hash of each image of each part."""
    return {part: data.hashes() for part, data in raw.items()}


def count_shared(hashes: Mapping[str, Sequence[bytes]]) -> int:
    """Return the number of different images that are in several parts."""
    counts = Counter(digest for part in hashes.values() for digest in set(part))
    return sum(count > 1 for count in counts.values())


def canonical_order(hashes: Sequence[bytes], labels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the indices that sort images by hash. Equal images are sorted by label, so file order never matters."""
    return np.array(sorted(range(len(hashes)), key=lambda i: (hashes[i], int(labels[i]))), dtype=np.int64)


def _unit_interval(digest: bytes) -> float:
    """Read a hash as a number in [0, 1)."""
    return int.from_bytes(digest[:6], "big") / 2**48


def _validation_mask(hashes: Sequence[bytes], order: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Choose the images that go to validation, by whole groups of equal images. Returns a mask over `order`."""
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

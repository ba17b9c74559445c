from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from coldtune.data.source import Raw
from coldtune.data.splits import HELD_OUT, assign, canonical_order

seeds = st.integers(0, 2**32 - 1)


def few_levels(count: int, seed: int) -> Raw:
    """Return images of 2 x 2 pixels with four grey levels. There are only 256 of them, so many are equal."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 4, (count, 1, 2, 2), dtype=np.uint8)
    return Raw(images, rng.integers(0, 10, count))


def contents(raw: dict[str, Raw]) -> dict[str, list[tuple[bytes, int]]]:
    """Return the pixels and label of every image of every split, in the order of the split."""
    return {
        split: [(raw[part].images[i].tobytes(), int(raw[part].labels[i])) for i in indices]
        for split, (part, indices) in assign(raw).items()
    }


def shuffled(raw: Raw, seed: int) -> Raw:
    order = np.random.default_rng(seed).permutation(len(raw.images))
    return Raw(raw.images[order], raw.labels[order])


@given(seeds, seeds)
@settings(max_examples=25, deadline=None)
def test_assign_file_order_changes_nothing(seed: int, order: int) -> None:
    whole = {"all": few_levels(300, seed)}
    assert contents(whole) == contents({"all": shuffled(whole["all"], order)})
    parts = {"train": few_levels(200, seed), "test": few_levels(50, seed + 1)}
    assert contents(parts) == contents({part: shuffled(raw, order) for part, raw in parts.items()})


@given(seeds)
@settings(max_examples=25, deadline=None)
def test_assign_every_image_is_in_one_split_with_its_duplicates(seed: int) -> None:
    raw = few_levels(300, seed)
    splits = contents({"all": raw})
    published = Counter((image.tobytes(), int(label)) for image, label in zip(raw.images, raw.labels, strict=True))
    assert Counter(item for items in splits.values() for item in items) == published
    pixels = [{pixel for pixel, _ in items} for items in splits.values()]
    assert sum(len(some) for some in pixels) == len(set.union(*pixels))


@given(seeds)
@settings(max_examples=25, deadline=None)
def test_assign_split_of_an_image_does_not_depend_on_other_images(seed: int) -> None:
    raw = few_levels(300, seed)
    half = Raw(raw.images[:150], raw.labels[:150])
    try:
        of_half = contents({"all": half})
    except ValueError:
        assume(False)
    home = {pixels: split for split, items in contents({"all": raw}).items() for pixels, _ in items}
    assert all(home[pixels] == split for split, items in of_half.items() for pixels, _ in items)


def test_assign_one_part_is_split_60_20_20() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (20_000, 1, 4, 4), dtype=np.uint8)
    sizes = {split: len(i) for split, (_, i) in assign({"all": Raw(images, np.zeros(20_000, np.int64))}).items()}
    for split, fraction in {"train": 0.6, "validation": 0.2, "test": 0.2}.items():
        deviation = (20_000 * fraction * (1 - fraction)) ** 0.5
        assert abs(sizes[split] - 20_000 * fraction) < 4 * deviation


@pytest.mark.parametrize(("published", "held_out"), [(50_000, HELD_OUT), (60_000, HELD_OUT), (40, 8)])
def test_assign_keeps_test_set_and_takes_validation_out_of_train(published: int, held_out: int) -> None:
    images = np.arange(published, dtype=np.uint32).view(np.uint8).reshape(published, 1, 2, 2)
    train = Raw(images, np.zeros(published, np.int64))
    test = few_levels(30, 1)
    chosen = assign({"train": train, "test": test})
    assert {split: part for split, (part, _) in chosen.items()} == {
        "train": "train",
        "validation": "train",
        "test": "test",
    }
    assert len(chosen["validation"][1]) == held_out
    assert sorted(np.concatenate([chosen["train"][1], chosen["validation"][1]])) == list(range(published))
    assert sorted(chosen["test"][1]) == list(range(30))


@given(seeds)
@settings(max_examples=25, deadline=None)
def test_assign_equal_images_go_to_validation_together(seed: int) -> None:
    splits = contents({"train": few_levels(400, seed), "test": few_levels(10, seed)})
    in_train, in_validation = ({pixels for pixels, _ in splits[split]} for split in ("train", "validation"))
    assert not in_train & in_validation
    assert len(splits["validation"]) <= 80


def test_assign_too_large_group_of_equal_images_stays_in_train() -> None:
    images = np.zeros((100, 1, 2, 2), dtype=np.uint8)
    images[90:, 0, 0, 0] = np.arange(1, 11)
    splits = contents({"train": Raw(images, np.zeros(100, np.int64)), "test": few_levels(5, 0)})
    assert len(splits["validation"]) == 10
    assert {pixels for pixels, _ in splits["train"]} == {bytes(4)}


def test_canonical_order_equal_images_are_sorted_by_label() -> None:
    raw = Raw(np.zeros((3, 1, 2, 2), np.uint8), np.array([5, 1, 3]))
    assert raw.labels[canonical_order(raw.hashes(), raw.labels)].tolist() == [1, 3, 5]


def test_raw_hashes_differ_for_different_shapes_of_same_bytes() -> None:
    flat, label = np.zeros(12, dtype=np.uint8), np.zeros(1, np.int64)
    assert Raw(flat.reshape(1, 3, 2, 2), label).hashes() != Raw(flat.reshape(1, 1, 6, 2), label).hashes()


def test_assign_three_published_parts_are_kept() -> None:
    raw = {split: few_levels(count, seed=count) for split, count in (("train", 30), ("validation", 7), ("test", 9))}
    chosen = assign(raw)
    assert {split: part for split, (part, _) in chosen.items()} == {split: split for split in raw}
    for split, (_, indices) in chosen.items():
        assert sorted(indices) == list(range(len(raw[split].labels)))
        hashes = raw[split].hashes()
        assert [hashes[i] for i in indices] == sorted(hashes)


def test_assign_empty_split_is_refused() -> None:
    with pytest.raises(ValueError, match="would be empty"):
        assign({"train": few_levels(4, 0), "test": few_levels(4, 0)})

"""Tests of the classes and splits of a user's own images, in folders and in Parquet files."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from synthetic_files import jpeg_bytes, photo, png_bytes, write_tree

from coldtune.data import Dataset, prepare
from coldtune.data.manifest import Manifest
from coldtune.data.sources.layout import arrange, split_of_shard

FOLDER = {"name": "folder", "image_size": 16}
PARQUET = {"name": "parquet", "image_size": 16}
PNGS = [png_bytes(photo(i, 16, 16)) for i in range(60)]
CATS, DOGS = PNGS[:30], PNGS[30:]
SPLITS = ("train", "validation", "test")


def files(**folders: list[bytes]) -> dict[str, bytes]:
    """Name images by their folder, whose parts are separated by two underscores."""
    return {f"{name.replace('__', '/')}/{i}.png": data for name, images in folders.items()
            for i, data in enumerate(images)}  # fmt: skip


def own(tmp_path: Path, tree: Mapping[str, bytes], name: str = "own") -> Dataset:
    write_tree(tmp_path / name, tree)
    return prepare(FOLDER, tmp_path / "home", tmp_path / name)


def contents(dataset: Dataset) -> dict[str, dict[bytes, int]]:
    """Return the label of each image, by its pixels, for each split."""
    return {name: {image.numpy().tobytes(): int(label) for image, label in
                   zip(dataset.split(name).images, dataset.split(name).labels, strict=True)}
            for name in SPLITS}  # fmt: skip


def pixels(*indices: int) -> set[bytes]:
    return {photo(i, 16, 16).tobytes() for i in indices}


@pytest.mark.parametrize("inside", ["", "photos/", "photos/train/"])
def test_folder_of_classes_gives_labels_in_the_order_of_names(tmp_path: Path, inside: str) -> None:
    dataset = own(tmp_path, {inside + name: data for name, data in files(dogs=DOGS, cats__old=CATS).items()})
    assert dataset.classes == ("cats", "dogs")
    assert dataset.num_classes == 2
    labels = {image: label for split in contents(dataset).values() for image, label in split.items()}
    assert labels == dict.fromkeys(pixels(*range(30)), 0) | dict.fromkeys(pixels(*range(30, 60)), 1)


def test_folder_of_classes_with_an_image_outside_has_no_labels_and_says_so(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"stray\.png: lies outside of the folders of classes, so no image"):
        dataset = own(tmp_path, {**files(cats=CATS, dogs=DOGS[1:]), "stray.png": DOGS[0]})
    assert (dataset.classes, dataset.num_classes) == ((), 1)


def test_folder_with_train_val_test_keeps_these_splits(tmp_path: Path) -> None:
    tree = files(train__cats=CATS[:20], train__dogs=DOGS[:20], val__cats=CATS[20:25], val__dogs=DOGS[20:25],
                 Test__cats=CATS[25:], Test__dogs=DOGS[25:])  # fmt: skip
    found = contents(own(tmp_path, tree))
    assert {name: set(images) for name, images in found.items()} == {
        "train": pixels(*range(20), *range(30, 50)),
        "validation": pixels(*range(20, 25), *range(50, 55)),
        "test": pixels(*range(25, 30), *range(55, 60)),
    }
    assert set(found["test"].values()) == {0, 1}


@pytest.mark.parametrize(("kept", "cut"), [("test", "validation"), ("validation", "test")])
def test_folder_with_train_and_another_split_cuts_train_by_hash(tmp_path: Path, kept: str, cut: str) -> None:
    dataset = own(tmp_path, files(**{"train": PNGS[:50], kept: PNGS[50:]}))
    places = [int.from_bytes(hashlib.sha256(data).digest()[:6], "big") / 2**48 for data in PNGS[:50]]
    found = contents(dataset)
    assert set(found[kept]) == pixels(*range(50, 60))
    assert set(found["train"]) == pixels(*(i for i, place in enumerate(places) if place < 0.8))
    assert set(found[cut]) == pixels(*(i for i, place in enumerate(places) if place >= 0.8))


@pytest.mark.parametrize("parts", [("",), ("train/", "test/")])
def test_folder_added_images_move_no_other_image(tmp_path: Path, parts: tuple[str, ...]) -> None:
    tree = {f"{parts[i % len(parts)]}{i}.png": data for i, data in enumerate(PNGS)}
    before = contents(own(tmp_path, dict(list(tree.items())[:40])))
    after = contents(own(tmp_path, tree))
    assert all(set(before[split]) <= set(after[split]) for split in SPLITS)


def test_folder_fingerprint_follows_content_and_not_names_or_times(tmp_path: Path) -> None:
    first = own(tmp_path, files(a=CATS, b=DOGS), "one")
    second = own(tmp_path, {f"{999 - i}.png": data for i, data in enumerate(PNGS)}, "two")
    for path in (tmp_path / "two").iterdir():
        os.utime(path, (1, 1))
    third = prepare(FOLDER, tmp_path / "other", tmp_path / "two")
    changed = own(tmp_path, files(a=CATS, b=[*DOGS[1:], png_bytes(photo(99, 16, 16))]), "three")
    assert first.fingerprint == second.fingerprint == third.fingerprint != changed.fingerprint


def test_folder_equal_images_in_two_splits_are_reported(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"folder: 2 images are in several of all, test, so a restorer is judged on"):
        own(tmp_path, files(train=PNGS[:50], test=PNGS[48:]))


def test_folder_prepared_by_an_earlier_version_without_classes_is_found(tmp_path: Path) -> None:
    """An earlier version read no folders, and its homes keep what they have."""
    dataset = own(tmp_path, files(train=PNGS[:50], test=PNGS[50:]))
    tree = json.loads((dataset.path / "manifest.json").read_text())
    del tree["classes"]
    Manifest.model_validate(tree)
    (dataset.path / "manifest.json").write_text(json.dumps(tree))
    assert prepare(FOLDER, tmp_path / "home", tmp_path / "own").path == dataset.path


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["train/1.png", "test/2.png", "more/3.png"], r"more/3\.png: lies beside .*\(test/, train/\)"),
        (["train/1.png", "test/2.png", "3.png"], r"3\.png: lies beside"),
        (["val/1.png", "test/2.png"], r"there are test/, val/ but no train/"),
    ],
)
def test_arrange_unclear_splits_are_refused(names: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        arrange(names, str)


@pytest.mark.parametrize(
    ("names", "parts", "classes"),
    [
        (["train/1.png", "car/2.png"], {"all"}, ("car", "train")),  # vehicles
        (["train/1.png", "train/2.png"], {"all"}, ()),
        (["x/training/a/1.png", "x/valid/b/2.png", "x/testing/a/3.png"], {"train", "validation", "test"}, ("a", "b")),
        (["1.png", "2.png"], {"all"}, ()),
        (["a/1.png", "a/2.png"], {"all"}, ()),
    ],
)
def test_arrange_finds_parts_and_classes(names: list[str], parts: set[str], classes: tuple[str, ...]) -> None:
    layout = arrange(names, str)
    assert set(layout.parts) == parts
    assert sorted(name for listed in layout.parts.values() for name in listed) == sorted(names)
    assert layout.classes == classes


def write_parquet(path: Path, images: list[bytes | None], labels: list | None = None, names: tuple = (),
                  column: str = "image", plain: bool = False) -> None:  # fmt: skip
    """Write Hugging Face's layout."""
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    rows = pa.array(images, pa.binary()) if plain else pa.array([{"bytes": data, "path": "x"} for data in images], kind)
    table = pa.table({column: rows} | ({} if labels is None else {"label": pa.array(labels)}))
    if names:
        features = {"info": {"features": {"label": {"names": list(names), "_type": "ClassLabel"}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)


def own_parquet(tmp_path: Path) -> Dataset:
    return prepare(PARQUET, tmp_path / "home", tmp_path / "own")


def test_parquet_images_labels_and_class_names_are_those_of_the_files(tmp_path: Path) -> None:
    for number in range(2):
        rows = PNGS[30 * number : 30 * (number + 1)]
        path = tmp_path / "own" / "data" / f"train-0000{number}-of-00002.parquet"
        write_parquet(path, rows, [number * 2] * 30, names=("cat", "cow", "dog"))
    dataset = own_parquet(tmp_path)
    assert dataset.classes == ("cat", "dog")
    labels = {image: label for split in contents(dataset).values() for image, label in split.items()}
    assert labels == dict.fromkeys(pixels(*range(30)), 0) | dict.fromkeys(pixels(*range(30, 60)), 1)


def test_parquet_and_folder_of_the_same_files_have_the_same_fingerprint(tmp_path: Path) -> None:
    mixed = [*PNGS[:40], *(jpeg_bytes(photo(i, 20, 16)) for i in range(40, 60))]
    write_tree(tmp_path / "folder", {f"{i}.png": data for i, data in enumerate(mixed)})
    write_parquet(tmp_path / "own" / "0000.parquet", mixed[::-1], plain=True, column="img")
    folder = prepare(FOLDER, tmp_path / "home", tmp_path / "folder")
    assert own_parquet(tmp_path).fingerprint == folder.fingerprint


def test_parquet_splits_are_told_by_files_or_folders(tmp_path: Path) -> None:
    parts = {"train": PNGS[:40], "validation": PNGS[40:50], "test": PNGS[50:]}
    for split, images in parts.items():
        write_parquet(tmp_path / "own" / "default" / split / "0000.parquet", images, ["a", "b"] * (len(images) // 2))
    dataset = own_parquet(tmp_path)
    assert dataset.sizes == {split: len(images) for split, images in parts.items()}
    assert dataset.classes == ("a", "b")


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([-1] * 20, r"test\.parquet, row 0: label is negative, which .* unknown label, so no image has a label"),
        ([0, *[None] * 19], r"test\.parquet, row 1: label is null, so no image has a label"),
        ([0.5] * 20, r"test\.parquet: label is a column of double, not of integers or texts, so no image"),
        (None, r"test\.parquet: has no column label, but .*train\.parquet has, so no image has a label"),
    ],
)
def test_parquet_unknown_labels_are_no_classes_with_the_reason(tmp_path: Path, labels: list | None, said: str) -> None:
    write_parquet(tmp_path / "own" / "train.parquet", PNGS[:40], [0, 1] * 20)
    write_parquet(tmp_path / "own" / "test.parquet", PNGS[40:], labels)
    with pytest.warns(UserWarning, match=said):
        dataset = own_parquet(tmp_path)
    assert (dataset.num_classes, dataset.classes) == (1, ())


@pytest.mark.parametrize("labels", [[True, False], pa.array(["b", "a"]).dictionary_encode(), [7, 3]])
def test_parquet_labels_of_every_kind_are_classes(tmp_path: Path, labels: Any) -> None:
    values = pa.concat_arrays([pa.array(labels)] * 30)
    write_parquet(tmp_path / "own" / "0.parquet", PNGS[:60], values)
    dataset = own_parquet(tmp_path)
    first, second = (str(value) for value in pa.array(labels).to_pylist())
    assert dataset.classes == (second, first)
    found = {image: label for split in contents(dataset).values() for image, label in split.items()}
    assert found == {image: 1 - i % 2 for i in range(60) for image in pixels(i)}


def test_parquet_column_that_may_hold_labels_is_named(tmp_path: Path) -> None:
    table = pa.table({"image": pa.array(PNGS[:60], pa.binary()), "fine_label": pa.array([0, 1] * 30)})
    (tmp_path / "own").mkdir()
    pq.write_table(table, tmp_path / "own" / "0.parquet")
    with pytest.warns(UserWarning, match=r"from the column label alone, and not from fine_label"):
        assert own_parquet(tmp_path).num_classes == 1


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train-00000-of-00002.parquet", "train"),
        ("data/validation.parquet", "validation"),
        ("test/0000.parquet", "test"),
        ("train/test-1.parquet", "test"),
        ("images.parquet", None),
        ("trains/1.parquet", None),
        ("dev_a.parquet", "validation"),
    ],
)
def test_split_of_shard_is_told_by_its_path(name: str, split: str | None) -> None:
    assert split_of_shard(name) == split


def test_parquet_missing_or_unclear_files_are_refused(tmp_path: Path) -> None:
    write_parquet(tmp_path / "own" / "train-00000-of-00002.parquet", PNGS)
    with pytest.raises(ValueError, match=r"own lacks Parquet files: train-00001-of-00002\.parquet"):
        own_parquet(tmp_path)
    shutil.rmtree(tmp_path / "own")
    write_parquet(tmp_path / "own" / "train.parquet", PNGS[:40])
    write_parquet(tmp_path / "own" / "more.parquet", PNGS[40:])
    with pytest.raises(ValueError, match=r"more\.parquet: other files name a split"):
        own_parquet(tmp_path)


@pytest.mark.parametrize(
    ("images", "labels", "column", "message"),
    [
        ([*PNGS[:5], None], None, "image", r"0\.parquet, row 5: image\.bytes is null"),
        ([*PNGS[:25], b"no image"], None, "image", r"0\.parquet, row 25: the image is not a JPEG"),
        (PNGS[:30], None, "picture", r"0\.parquet: columns picture; needed: image or img \(bytes, path\)"),
        (PNGS[:3], None, "image", r"0\.parquet: contains 3 images; at least 20"),
    ],
)
def test_parquet_bad_row_or_column_is_named(
    tmp_path: Path, images: list[bytes | None], labels: list | None, column: str, message: str
) -> None:
    write_parquet(tmp_path / "own" / "0.parquet", images, labels, column=column)
    with pytest.raises(ValueError, match=message):
        own_parquet(tmp_path)


def test_data_path_names_the_folder_and_data_dir_takes_precedence(tmp_path: Path) -> None:
    write_tree(tmp_path / "one", files(a=PNGS[:40]))
    write_tree(tmp_path / "two", files(a=PNGS[20:]))
    config = FOLDER | {"path": str(tmp_path / "one")}
    one = prepare(config, tmp_path / "home")
    two = prepare(config, tmp_path / "home", tmp_path / "two")
    assert set().union(*contents(one).values()) == pixels(*range(40))
    assert set().union(*contents(two).values()) == pixels(*range(20, 60))


def test_prepared_images_are_chosen_by_their_fingerprint_among_several(tmp_path: Path) -> None:
    first = own(tmp_path, files(a=PNGS[:40]), "one")
    second = own(tmp_path, files(a=PNGS[20:]), "two")
    with pytest.raises(ValueError, match=r"prepared from different files .*Choose with --data-dir"):
        prepare(FOLDER, tmp_path / "home")
    for dataset in (first, second):
        assert prepare(FOLDER, tmp_path / "home", fingerprint=dataset.fingerprint).path == dataset.path
        gone = FOLDER | {"path": "is/gone"}
        assert prepare(gone, tmp_path / "home", fingerprint=dataset.fingerprint).path == dataset.path


def test_data_path_that_is_gone_falls_back_to_the_prepared_images(tmp_path: Path) -> None:
    write_tree(tmp_path / "own", files(a=PNGS))
    config = FOLDER | {"path": str(tmp_path / "own")}
    prepared = prepare(config, tmp_path / "home")
    shutil.rmtree(tmp_path / "own")
    assert prepare(config, tmp_path / "home").path == prepared.path
    with pytest.raises(ValueError, match=r"data\.path = '.*own': no such directory; folder: .*name a folder with"):
        prepare(config, tmp_path / "another")
    write_tree(tmp_path / "own", files(a=PNGS[:3]))
    with pytest.raises(ValueError, match=r"data\.path = '.*own': contains 3 images"):
        prepare(config, tmp_path / "another")


def test_folder_mixed_formats_grey_and_opaque_alpha_become_rgb(tmp_path: Path) -> None:
    from PIL import Image

    (tmp_path / "own").mkdir()
    expected = set()
    for i in range(24):
        image = photo(i, 16, 16)
        picture = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))
        mode = ("RGB", "L", "RGBA")[i % 3]
        picture.convert(mode).save(tmp_path / "own" / f"{i}.{'bmp' if mode == 'L' else 'PNG'}")
        expected.add(np.asarray(picture.convert(mode).convert("RGB")).transpose(2, 0, 1).tobytes())
    assert set().union(*contents(prepare(FOLDER, tmp_path / "home", tmp_path / "own")).values()) == expected

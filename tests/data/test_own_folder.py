"""Tests of the dataset `folder`, a user's own images."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from synthetic_files import jpeg_bytes, photo, png_bytes, write_tree

from coldtune.data import names, prepare
from coldtune.data.sources.folder import LEAST

FOLDER = {"name": "folder", "image_size": 16}
FILES = {f"cats/{i}.png": png_bytes(photo(i, 16, 16)) for i in range(20)} | {
    f"dogs/old/{i}.JPG": jpeg_bytes(photo(i, 20, 16)) for i in range(20, 40)
}


def test_folder_images_are_split_by_the_hash_of_their_files(tmp_path: Path) -> None:
    write_tree(tmp_path / "own", FILES)
    dataset = prepare(FOLDER, tmp_path / "home", tmp_path / "own")
    places = [int.from_bytes(hashlib.sha256(data).digest()[:6], "big") / 2**48 for data in FILES.values()]
    expected = {
        "train": sum(place < 0.6 for place in places),
        "validation": sum(0.6 <= place < 0.8 for place in places),
        "test": sum(place >= 0.8 for place in places),
    }
    assert dataset.sizes == expected
    assert dataset.image_shape == (3, 16, 16)
    stored = {image.numpy().tobytes() for split in expected for image in dataset.split(split).images}
    assert {photo(i, 16, 16).tobytes() for i in range(20)} <= stored


def test_folder_flat_and_nested_files_have_the_same_fingerprint(tmp_path: Path) -> None:
    write_tree(tmp_path / "nested", FILES)
    write_tree(tmp_path / "flat", {name.replace("/", "-"): data for name, data in FILES.items()})
    prints = {prepare(FOLDER, tmp_path / "home", tmp_path / where).fingerprint for where in ("nested", "flat")}
    assert len(prints) == 1


def test_folder_other_files_are_left_out_with_a_warning(tmp_path: Path) -> None:
    write_tree(tmp_path / "own", {**FILES, "notes.txt": b"x", "cats/film.gif": b"x", ".hidden": b"x"})
    with pytest.warns(UserWarning, match=r"film\.gif: not an image, so it is left out, as is 1 other file"):
        dataset = prepare(FOLDER, tmp_path / "home", tmp_path / "own")
    assert sum(dataset.sizes.values()) == len(FILES)


def test_folder_with_too_few_images_is_refused(tmp_path: Path) -> None:
    write_tree(tmp_path / "own", dict(list(FILES.items())[: LEAST - 1]))
    with pytest.raises(ValueError, match=rf"own': contains {LEAST - 1} images; it needs at least {LEAST} images"):
        prepare(FOLDER, tmp_path / "home", tmp_path / "own")


def test_folder_that_contains_the_home_is_refused(tmp_path: Path) -> None:
    write_tree(tmp_path, FILES)
    with pytest.raises(ValueError, match=r"contains the home .*whose pictures would be read too"):
        prepare(FOLDER, tmp_path / "runs", tmp_path)


def test_folder_without_data_dir_says_how_to_name_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"folder: .*put your images into a folder, then pass --data-dir PATH"):
        prepare(FOLDER, tmp_path / "home")


def test_help_of_a_job_names_every_dataset() -> None:
    from coldtune.cli.job import parser

    help_text = parser("doc", 3).format_help()
    assert [name for name in names() if name not in help_text] == []

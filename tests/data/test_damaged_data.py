"""Tests of prepared data that changed after it was written: nobody uses such pixels, and the error says what to do."""

from __future__ import annotations

import errno
import json
import os
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
import torch

from coldtune.data import Dataset, prepare, verify
from coldtune.data import dataset as dataset_module
from coldtune.data.errors import DamagedDataError

DIGITS = {"name": "digits", "image_size": 16}


@pytest.fixture
def folder(digits_home: Path, tmp_path: Path) -> Path:
    """A copy of the prepared digits whose files look old enough to be remembered as verified."""
    whole = prepare(DIGITS, digits_home).path
    copied = tmp_path / "home" / "data" / whole.name
    shutil.copytree(whole, copied)
    return copied


@pytest.fixture(autouse=True)
def _settled(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Count files as old that were written a moment ago."""
    monkeypatch.setattr(dataset_module, "_SETTLED_NS", -1)
    monkeypatch.setattr(dataset_module, "_VERIFIED", set())
    return


def flip(path: Path, offset: int) -> None:
    """Change a byte, and keep the size and the time of the last change."""
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 255]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def middle(path: Path) -> int:
    return path.stat().st_size // 2


def test_split_flipped_pixel_is_refused_with_the_command_that_repairs(folder: Path) -> None:
    flip(folder / "train.arrow", middle(folder / "train.arrow"))
    with pytest.raises(DamagedDataError, match="the pixels of train have changed") as caught:
        Dataset.open(folder).split("train")
    message = str(caught.value)
    assert str(folder / "train.arrow") in message
    assert f"coldtune data prepare digits --image-size 16 --resize bilinear --home {folder.parents[1]}" in message
    assert "\n" not in message
    assert len(Dataset.open(folder).split("validation")) == 363, "other splits are good"


def test_damaged_data_error_is_a_fault_of_the_machine_and_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(DamagedDataError("x is damaged")))
    assert isinstance(error, OSError)
    assert (error.errno, str(error)) == (errno.EIO, "x is damaged")


def test_split_changed_after_it_was_opened_is_refused_at_the_next_use(folder: Path) -> None:
    dataset = Dataset.open(folder)
    dataset.split("train")
    dataset.recheck()
    flip(folder / "train.arrow", middle(folder / "train.arrow"))
    with pytest.raises(DamagedDataError, match="pixels of train"):
        dataset.recheck()
    with pytest.raises(DamagedDataError, match="pixels of train"):
        dataset.split("train")
    with pytest.raises(DamagedDataError, match="pixels of train"):
        Dataset.open(folder).split("train")


def test_split_is_hashed_once_while_its_file_stays_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed = []
    real = dataset_module.content_hash
    monkeypatch.setattr(dataset_module, "content_hash", lambda tensor: hashed.append(len(tensor)) or real(tensor))
    for _ in range(3):
        Dataset.open(folder).split("test")
    assert len(hashed) == 2, "pixels and labels, once each"
    (folder / "test.arrow").touch()
    Dataset.open(folder).split("test")
    assert len(hashed) == 4


def test_split_young_file_is_not_remembered(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset_module, "_SETTLED_NS", 10**18)
    monkeypatch.setattr(dataset_module, "_VERIFIED", set())
    Dataset.open(folder).split("test")
    assert not dataset_module._VERIFIED


def test_prepare_flipped_pixel_is_prepared_again_with_a_warning(folder: Path) -> None:
    flip(folder / "validation.arrow", middle(folder / "validation.arrow"))
    with pytest.warns(UserWarning, match="the pixels of validation have changed .*; preparing it again"):
        again = prepare(DIGITS, folder.parents[1])
    assert verify(again.path).ok


def test_prepare_damaged_data_whose_source_is_gone_names_the_damage(tmp_path: Path) -> None:
    from PIL import Image

    (tmp_path / "images").mkdir()
    for i in range(30):
        Image.new("RGB", (16, 16), (i, 2 * i, 3 * i)).save(tmp_path / "images" / f"{i}.png")
    config = {"name": "folder", "image_size": 16}
    made = prepare(config, tmp_path / "home", tmp_path / "images")
    flip(made.path / "train.arrow", middle(made.path / "train.arrow"))
    with pytest.raises(ValueError, match=r"train\.arrow: the pixels of train have changed.*; folder: .*--data-dir"):
        prepare(config, tmp_path / "home")


@pytest.mark.parametrize("offset", [0, 3, 20, 60])
def test_verify_flipped_byte_of_the_header_is_found(folder: Path, offset: int) -> None:
    flip(folder / "test.arrow", offset)
    report = verify(folder)
    assert len(report.problems) == 1
    assert "test.arrow" in report.problems[0]


def test_verify_every_flipped_byte_is_found(folder: Path) -> None:
    size = (folder / "test.arrow").stat().st_size
    generator = torch.Generator().manual_seed(0)
    for offset in torch.randint(0, size, (40,), generator=generator).tolist():
        flip(folder / "test.arrow", offset)
        assert not verify(folder).ok, offset
        flip(folder / "test.arrow", offset)
    assert verify(folder).ok


def rewrite(path: Path, change) -> None:
    with pa.OSFile(str(path)) as file:
        table = pa.ipc.open_file(file).read_all()
    batch = change(table.combine_chunks()).to_batches()[0]
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, batch.schema) as writer:
        writer.write_batch(batch)


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table.slice(0, 10),
        lambda table: table.rename_columns(["picture", "label"]),
        lambda table: table.set_column(1, "label", table["label"].cast(pa.int32())),
        lambda table: table.replace_schema_metadata({}),
        lambda table: table.append_column("more", table["label"]),
    ],
    ids=["fewer images", "another column", "another type", "no tag", "one column more"],
)
def test_split_other_schema_or_count_is_refused(folder: Path, change) -> None:
    rewrite(folder / "test.arrow", change)
    size = (folder / "test.arrow").stat().st_size
    tree = json.loads((folder / "manifest.json").read_text())
    tree["splits"]["test"]["bytes"] = size
    (folder / "manifest.json").write_text(json.dumps(tree))
    with pytest.raises(DamagedDataError, match=r"test\.arrow"):
        Dataset.open(folder).split("test")
    assert not verify(folder).ok


@pytest.mark.parametrize(("key", "value"), [("images", -5), ("images", 0), ("pixels", "x"), ("bytes", -1)])
def test_manifest_impossible_value_is_refused(folder: Path, key: str, value: object) -> None:
    tree = json.loads((folder / "manifest.json").read_text())
    tree["splits"]["validation"][key] = value
    (folder / "manifest.json").write_text(json.dumps(tree))
    with pytest.raises(DamagedDataError, match=rf"manifest\.json .*splits\.validation\.{key}"):
        Dataset.open(folder)


def test_manifest_without_hashes_of_files_is_still_read(folder: Path) -> None:
    """Folders that were prepared before the hash of the whole file was recorded stay good."""
    tree = json.loads((folder / "manifest.json").read_text())
    for record in tree["splits"].values():
        del record["sha256"]
    (folder / "manifest.json").write_text(json.dumps(tree))
    assert verify(folder).ok
    assert len(Dataset.open(folder).split("test")) == 358

"""Tests of CelebA and AFHQ with small files in their published layouts."""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from synthetic_files import jpeg_bytes, photo, png_bytes, write_tree, write_zip
from torch.nn.functional import interpolate

from coldtune.data import Dataset, prepare, prepared, verify
from coldtune.data.file_collections import FolderFiles
from coldtune.data.prepare import SPLITS
from coldtune.data.progress import Bars
from coldtune.data.registry import source
from coldtune.data.sources.afhq import CLASSES

PARTITION = "list_eval_partition.txt"
FACES = {f"{number:06d}.jpg": jpeg_bytes(photo(number)) for number in range(1, 31)}
PUBLISHED = {name: str(min(index // 10, 2)) for index, name in enumerate(FACES)}
LINES = "".join(f"{name} {part}\n" for name, part in PUBLISHED.items()).encode()
SPLIT_OF = {"0": "train", "1": "validation", "2": "test"}


def celeba(size: int = 16, **settings: str) -> dict:
    return {"name": "celeba", "image_size": size, **settings}


def afhq(size: int = 16) -> dict:
    return {"name": "afhq", "image_size": size}


def inside(folder: str, files: Mapping[str, bytes] = FACES) -> dict[str, bytes]:
    return {f"{folder}/{name}": data for name, data in files.items()}


def animals(beside: str, suffix: str = "jpg", train: int = 6, test: int = 2, seed: int = 0) -> dict[str, bytes]:
    """Return AFHQ's tree, with `train` images of each class in train/ and `test` images of each class in `beside`/."""
    encode = jpeg_bytes if suffix == "jpg" else png_bytes
    seeds = iter(range(seed, seed + 1000))
    return {
        f"{part}/{name}/flickr_{name}_{number:06d}.{suffix}": encode(photo(next(seeds), 40, 40))
        for part, count in (("train", train), (beside, test))
        for name in CLASSES
        for number in range(count)
    }


def encoded(dataset: Dataset, files: Mapping[str, bytes], size: int) -> dict[str, list[str]]:
    """Return the names of the files of each split's images, which are recognised by their unresized pixels."""
    names = {square(decoded(data)).tobytes(): name for name, data in files.items()}
    assert dataset.image_shape == (3, size, size)
    return {
        split: sorted(names[image.numpy().tobytes()] for image in dataset.split(split).images)
        for split in dataset.sizes
    }


def decoded(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).transpose(2, 0, 1)


def square(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[1:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return image[:, top : top + side, left : left + side]


LAYOUTS = ["", "celeba/", "CelebA/"]


@pytest.mark.parametrize("folder", LAYOUTS)
@pytest.mark.parametrize("packed", [False, True])
def test_celeba_keeps_the_published_partition(tmp_path: Path, folder: str, packed: bool) -> None:
    files, images = tmp_path / "files" / folder, inside("img_align_celeba")
    write_zip(files / "img_align_celeba.zip", images) if packed else write_tree(files, images)
    (files / PARTITION).write_bytes(LINES)
    dataset = prepare(celeba(36), tmp_path, tmp_path / "files")
    expected: dict[str, list[str]] = {split: [] for split in SPLITS}
    for name, part in PUBLISHED.items():
        expected[SPLIT_OF[part]].append(name)
    assert encoded(dataset, FACES, 36) == expected
    assert dataset.num_classes == 1
    assert all(not dataset.split(split).labels.any() for split in SPLITS)
    assert verify(dataset.path).ok
    assert Dataset.open(dataset.path).fingerprint == dataset.fingerprint


def test_celeba_every_layout_has_the_same_fingerprint(tmp_path: Path) -> None:
    images = inside("img_align_celeba")
    write_tree(tmp_path / "a", {**images, PARTITION: LINES})
    write_zip(tmp_path / "b" / "Img" / "img_align_celeba.zip", images)
    write_tree(tmp_path / "b" / "Eval", {PARTITION: LINES})
    write_tree(tmp_path / "c", {**inside("img_align_celeba/img_align_celeba"), PARTITION: LINES})
    datasets = [prepare(celeba(), tmp_path, tmp_path / where) for where in ("a", "b", "c", "a/img_align_celeba")]
    assert len({dataset.fingerprint for dataset in datasets}) == 1
    a, b, c, d = (dataset.path for dataset in datasets)
    assert a == c == d != b


def test_celeba_pixels_are_the_resized_central_square(tmp_path: Path) -> None:
    write_tree(tmp_path / "files", {**inside("img_align_celeba"), PARTITION: LINES})
    dataset = prepare(celeba(), tmp_path, tmp_path / "files")
    for split in SPLITS:
        names = [name for name, part in PUBLISHED.items() if SPLIT_OF[part] == split]
        order = sorted(names, key=lambda name: hashlib.sha256(FACES[name]).digest())
        squares = torch.from_numpy(np.stack([decoded(FACES[name])[:, 4:40] for name in order]))
        expected = interpolate(squares.double(), (16, 16), mode="bilinear", antialias=True)
        assert (dataset.split(split).images - expected).abs().max() < 1.5


def test_celeba_resize_mode_is_that_of_the_configuration(tmp_path: Path) -> None:
    write_tree(tmp_path / "files", {**inside("img_align_celeba"), PARTITION: LINES})
    dataset = prepare(celeba(12, resize="nearest"), tmp_path, tmp_path / "files")
    order = sorted((n for n, p in PUBLISHED.items() if p == "2"), key=lambda n: hashlib.sha256(FACES[n]).digest())
    expected = np.stack([square(decoded(FACES[name]))[:, 1::3, 1::3] for name in order])
    assert np.array_equal(dataset.split("test").images, expected)


def test_celeba_without_partition_is_split_by_hash_with_a_warning(tmp_path: Path) -> None:
    write_tree(tmp_path / "files", inside("img_align_celeba"))
    with pytest.warns(UserWarning, match=f"no {PARTITION} beside .* split 60/20/20"):
        dataset = prepare(celeba(36), tmp_path, tmp_path / "files")
    places = {name: int.from_bytes(hashlib.sha256(data).digest()[:6], "big") / 2**48 for name, data in FACES.items()}
    expected = {
        "train": sorted(name for name, place in places.items() if place < 0.6),
        "validation": sorted(name for name, place in places.items() if 0.6 <= place < 0.8),
        "test": sorted(name for name, place in places.items() if place >= 0.8),
    }
    assert encoded(dataset, FACES, 36) == expected


@pytest.mark.parametrize("folder", ["", "celeba_hq", "CelebA-HQ-img", "CelebAMask-HQ/CelebA-HQ-img"])
def test_celeba_hq_folder_is_found_and_read(tmp_path: Path, folder: str) -> None:
    faces = {f"{n}.png": png_bytes(photo(n, 32, 32)) for n in range(20)}
    write_tree(tmp_path / "files" / folder, faces)
    dataset = prepare(celeba(32), tmp_path, tmp_path / "files")
    assert sorted(name for names in encoded(dataset, faces, 32).values() for name in names) == sorted(faces)


@pytest.mark.parametrize("beside", ["val", "test"])
@pytest.mark.parametrize("folder", ["", "afhq", "afhq_v2"])
def test_afhq_keeps_the_test_part_and_takes_validation_out_of_train(tmp_path: Path, beside: str, folder: str) -> None:
    files = animals(beside)
    write_tree(tmp_path / "files" / folder, {**files, "LICENSE.txt": b"beside the parts, not among them"})
    dataset = prepare(afhq(40), tmp_path, tmp_path / "files")
    names = encoded(dataset, files, 40)
    assert dataset.sizes == {"train": 15, "validation": 3, "test": 6}
    assert names["test"] == sorted(name for name in files if name.startswith(beside))
    assert sorted(names["train"] + names["validation"]) == sorted(name for name in files if name.startswith("train"))
    by_pixels = {square(decoded(data)).tobytes(): name.split("/")[1] for name, data in files.items()}
    for split in SPLITS:
        images, labels = dataset.split(split).images, dataset.split(split).labels
        assert [by_pixels[image.numpy().tobytes()] for image in images] == [CLASSES[label] for label in labels]
    assert dataset.num_classes == 3
    assert verify(dataset.path).ok


def test_afhq_folder_and_archive_have_the_same_fingerprint(tmp_path: Path) -> None:
    files = animals("test", "png")
    write_tree(tmp_path / "a" / "afhq_v2", files)
    write_zip(tmp_path / "b" / "afhq_v2.zip", inside("some/folder", files))
    write_zip(tmp_path / "c" / "afhq.zip", files)
    assert len({prepare(afhq(), tmp_path, tmp_path / where).fingerprint for where in "abc"}) == 1


def test_afhq_with_three_parts_keeps_all_of_them(tmp_path: Path) -> None:
    files = {**animals("test"), **animals("val", train=0, seed=500)}
    write_tree(tmp_path / "files", files)
    names = encoded(prepare(afhq(40), tmp_path, tmp_path / "files"), files, 40)
    starts = {split: {name.split("/")[0] for name in names[split]} for split in SPLITS}
    assert starts == {"train": {"train"}, "validation": {"val"}, "test": {"test"}}


def test_identity_changes_with_file_names_and_contents(tmp_path: Path) -> None:
    files, chosen = animals("val"), source("afhq")

    def identity(name: str, tree: Mapping[str, bytes]) -> str:
        write_tree(tmp_path / name, tree)
        return chosen.identity(chosen.locate(tmp_path / name), Bars())

    name, data = next(iter(files.items()))
    rest = {other: files[other] for other in files if other != name}
    first = identity("a", files)
    assert identity("b", files) == first
    assert identity("c", {**rest, name: png_bytes(photo(999, 40, 40))}) != first
    assert identity("d", {**rest, name.replace("cat", "dog"): data}) != first


@pytest.mark.parametrize(
    ("config", "address"),
    [(celeba(), "mmlab.ie.cuhk.edu.hk/projects/CelebA"), (afhq(), "github.com/clovaai/stargan-v2")],
)
def test_prepare_photographs_without_files_says_how_to_get_them(tmp_path: Path, config: dict, address: str) -> None:
    with pytest.raises(
        ValueError, match=f"^{config['name']}: there is no automatic download: get .*{address}"
    ) as error:
        prepare(config, tmp_path)
    assert source(config["name"]).needs in str(error.value)
    assert "--data-dir PATH" in str(error.value)
    (tmp_path / "files").mkdir()
    with pytest.raises(ValueError, match=rf"data-dir = .*: no {config['name']} there; it needs"):
        prepare(config, tmp_path, tmp_path / "files")


def saved(mode: str, kind: str = "PNG", size: tuple[int, int] = (36, 44), **options: object) -> bytes:
    out = io.BytesIO()
    picture = Image.fromarray(photo(7).transpose(1, 2, 0)).resize(size)
    (picture.convert(mode) if mode != "I;16" else Image.new("I;16", size, 40_000)).save(out, kind, **options)
    return out.getvalue()


def sixteen_bits() -> bytes:
    """Build a PNG of 8 x 8 RGB pixels of 16 bits, which Pillow can read but not write."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(8 * 49))) + chunk(b"IEND", b"")


GOOD = FACES["000001.jpg"]
BAD = [
    (GOOD[:-40], "is damaged: image file is truncated"),
    (GOOD[: len(GOOD) // 2], "cannot be read: Truncated File Read"),
    (b"", "is not a JPEG, PNG, WebP or BMP image"),
    (b"<html>moved</html>", "is not a JPEG, PNG, WebP or BMP image"),
    (GOOD[:2] + bytes(200), "is not a JPEG, PNG, WebP or BMP image|is damaged|cannot be read"),
    (saved("P", "GIF"), "is not a JPEG, PNG, WebP or BMP image"),
    (saved("CMYK", "JPEG"), "has mode CMYK, but only grey, palette or RGB of 8 bits is allowed"),
    (saved("I;16"), "has 16 bits a channel, but only grey"),
    (sixteen_bits(), "has 16 bits a channel, but only grey"),
    (saved("RGB", size=(7, 30)), "is 7 x 30 pixels, but at least 8 x 8 is needed"),
    (saved("L", transparency=saved("L")[0]), "has transparent pixels"),
]


@pytest.mark.parametrize(("content", "message"), BAD, ids=range(len(BAD)))
@pytest.mark.parametrize("packed", [False, True])
def test_prepare_bad_image_is_named_with_the_reason(tmp_path: Path, content: bytes, message: str, packed: bool) -> None:
    images = {**inside("img_align_celeba"), "img_align_celeba/000013.jpg": content}
    write_zip(tmp_path / "img_align_celeba.zip", images) if packed else write_tree(tmp_path, images)
    (tmp_path / PARTITION).write_bytes(LINES)
    with pytest.raises(ValueError, match=rf"img_align_celeba/000013\.jpg ({message})"):
        prepare(celeba(), tmp_path / "home", tmp_path)
    assert prepared(tmp_path / "home") == []
    assert not [path for path in (tmp_path / "home" / "data").iterdir() if path.is_dir()]


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("L", "PNG"), ("L", "JPEG"), ("1", "PNG"), ("P", "PNG"), ("RGBA", "PNG"), ("RGB", "WEBP"), ("RGB", "BMP")],
)
def test_prepare_losslessly_convertible_image_is_accepted(tmp_path: Path, mode: str, kind: str) -> None:
    content = saved(mode, kind)
    images = {**inside("img_align_celeba"), "img_align_celeba/000013.jpg": content, PARTITION: LINES}
    write_tree(tmp_path, images)
    dataset = prepare(celeba(36), tmp_path / "home", tmp_path)
    expected = square(np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).transpose(2, 0, 1))
    assert any(np.array_equal(image, expected) for image in dataset.split("validation").images)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"img_align_celeba/notes.txt": b"x"}, r"img_align_celeba/notes\.txt is not an image \(\.jpg"),
        ({"img_align_celeba/new/000031.jpg": GOOD}, r"new/000031\.jpg is in a folder inside .*img_align_celeba: move"),
        ({"img_align_celeba/000031.jpg": GOOD}, rf"000031\.jpg is not in .*{PARTITION}"),
        ({PARTITION: LINES + b"000031.jpg 2\n"}, rf"lacks 1 images of .*{PARTITION}, for example 000031\.jpg"),
        ({PARTITION: LINES + b"000031.jpg 3\n"}, rf"{PARTITION}, line 31: '000031\.jpg 3'; allowed: .* 0, 1 or 2"),
        ({PARTITION: b"\xff\xd8\xff"}, rf"{PARTITION}, line 1: .*; allowed"),
    ],
)
def test_celeba_unexpected_files_are_refused(tmp_path: Path, change: dict[str, bytes], message: str) -> None:
    write_tree(tmp_path, {**inside("img_align_celeba"), PARTITION: LINES, **change})
    with pytest.raises(ValueError, match=message):
        prepare(celeba(), tmp_path / "home", tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train/horse/1.jpg": GOOD}, r"train/horse/1\.jpg: afhq has train, val or test / cat, dog, wild / image"),
        ({"train/1.jpg": GOOD}, r"train/1\.jpg: afhq has"),
        ({"val/cat/deep/1.jpg": GOOD}, r"val/cat/deep/1\.jpg: afhq has"),
        ({"val/cat/Thumbs.db": b"x"}, r"val/cat/Thumbs\.db is not an image"),
    ],
)
def test_afhq_unexpected_files_are_refused(tmp_path: Path, change: dict[str, bytes], message: str) -> None:
    write_tree(tmp_path, {**animals("val"), **change})
    with pytest.raises(ValueError, match=message):
        prepare(afhq(), tmp_path / "home", tmp_path)


@pytest.mark.parametrize(
    ("left", "missing"),
    [("train", "val or test"), ("val", "train"), (("train", "val/cat", "val/dog"), "val/wild")],
)
def test_afhq_missing_part_is_named(tmp_path: Path, left: str | tuple, missing: str) -> None:
    write_zip(tmp_path / "afhq.zip", {name: data for name, data in animals("val").items() if name.startswith(left)})
    with pytest.raises(ValueError, match=rf"afhq\.zip lacks a part of AFHQ: {missing}$"):
        prepare(afhq(), tmp_path / "home", tmp_path)


@pytest.mark.parametrize("at", [30, 0.5, -30])
def test_afhq_damaged_archive_is_named(tmp_path: Path, at: float) -> None:
    path = tmp_path / "afhq.zip"
    write_zip(path, animals("val"))
    data = bytearray(path.read_bytes())
    start = int(len(data) * at) if isinstance(at, float) else at
    if at == -30:
        data = data[:at]
    else:
        data[start : start + 2000] = bytes(len(data[start : start + 2000]))
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"afhq\.zip.*is damaged"):
        prepare(afhq(), tmp_path / "home", tmp_path)


def test_afhq_hidden_files_are_ignored(tmp_path: Path) -> None:
    write_tree(tmp_path, {**animals("val"), "train/cat/._flickr.jpg": b"macOS", "train/dog/.DS_Store": b"macOS"})
    assert prepare(afhq(), tmp_path / "home", tmp_path).sizes["train"] == 15


def test_prepare_enlarging_images_warns(tmp_path: Path) -> None:
    write_tree(tmp_path, animals("val"))
    with warnings.catch_warnings():
        prepare(afhq(40), tmp_path / "home", tmp_path)
    with pytest.warns(UserWarning, match="image_size = 41: some images are smaller and are enlarged"):
        prepare(afhq(41), tmp_path / "home", tmp_path)


def test_prepare_full_disk_while_decoding_raises_and_cleans_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The temporary file of decoded images is written with pwrite, so that a full disk is reported as an error."""
    import os

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    write_tree(tmp_path, animals("val"))
    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="No space left"):
        prepare(afhq(), tmp_path / "home", tmp_path)
    assert not [path for path in (tmp_path / "home" / "data").iterdir() if path.is_dir()]
    monkeypatch.undo()
    assert verify(prepare(afhq(), tmp_path / "home", tmp_path).path).ok


def test_folder_files_follow_symbolic_links(tmp_path: Path) -> None:
    write_tree(tmp_path / "disk", animals("val"))
    (tmp_path / "files" / "afhq").mkdir(parents=True)
    for part in ("train", "val"):
        (tmp_path / "files" / "afhq" / part).symlink_to(tmp_path / "disk" / part)
    there = FolderFiles.find(tmp_path / "disk").names
    assert FolderFiles.find(tmp_path / "files" / "afhq").names == there
    assert (
        prepare(afhq(), tmp_path, tmp_path / "files").fingerprint
        == prepare(afhq(), tmp_path, tmp_path / "disk").fingerprint
    )

"""Tests of files that are made to fill the memory, to be read for ever, or to start a program."""

from __future__ import annotations

import gzip
import io
import os
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from synthetic_files import (
    MNIST_NAMES,
    cifar_binaries,
    idx_bytes,
    photo,
    png_bytes,
    random_images,
    write_cifar_archive,
    write_cifar_parquet,
    write_mnist,
    write_tree,
    write_zip,
)

from coldtune.data import prepare, read_images
from coldtune.data.decode import decode

CELEBA = {"name": "celeba", "image_size": 16}
CIFAR = {"name": "cifar10", "image_size": 32}
MNIST = {"name": "mnist", "image_size": 28}
COLOUR = (random_images(60, 3, 32, seed=1), random_images(20, 3, 32, seed=2))
GREY = (random_images(60, 1, 28, seed=1), random_images(20, 1, 28, seed=2))
FACES = {f"img_align_celeba/{i}.png": png_bytes(photo(i, 32, 32)) for i in range(30)}
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n%%EndComments\n(started) print flush\nshowpage\n"


def saved(picture: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def png_of(width: int, height: int, data: bytes = b"") -> bytes:
    """Return a PNG whose header promises `width` x `height` grey pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def six_corners(colour: tuple[int, int, int] = (255, 0, 0)) -> Image.Image:
    picture = Image.new("RGB", (32, 32))
    picture.paste(colour, (0, 0, 8, 32))  # a bar at the left
    return picture


REFUSED = {
    "eps": (EPS, "is not a JPEG, PNG, WebP or BMP image"),
    "tiff": (saved(Image.new("RGB", (32, 32)), "TIFF"), "is not a JPEG"),
    "gif": (saved(Image.new("P", (32, 32)), "GIF"), "is not a JPEG"),
    "16 bits": (saved(Image.new("I;16", (32, 32), 40_000)), "16 bits a channel"),
    "cmyk": (saved(Image.new("CMYK", (32, 32)), "JPEG"), "mode CMYK"),
    "transparent": (saved(Image.new("RGBA", (32, 32), (9, 9, 9, 0))), "transparent"),
    "transparent palette": (saved(Image.new("P", (32, 32)), transparency=0), "transparent"),
    "animated": (
        saved(Image.new("RGB", (32, 32)), save_all=True, append_images=[Image.new("RGB", (32, 32), "red")]),
        "animation of 2 frames",
    ),
    "bomb": (png_of(20_000, 20_000), "pixels"),
    "bomb below Pillow's limit": (png_of(12_000, 12_000), r"(12000 x 12000|too many) pixels, but at most 67,108,864"),
    "bomb header": (png_of(2**31 - 1, 2**31 - 1), "pixels"),
    "empty": (b"", "is not a JPEG"),
}


@pytest.fixture(params=list(REFUSED))
def refused(request: pytest.FixtureRequest) -> tuple[bytes, str]:
    return REFUSED[request.param]


def shard(images: list[bytes | None], labels: pa.Array) -> pa.Table:
    rows = pa.array([{"bytes": data, "path": None} for data in images], pa.struct([("bytes", pa.binary())]))
    return pa.table({"img": rows, "label": labels})


def write_shard(folder: Path, table: pa.Table) -> Path:
    write_cifar_parquet(folder, *COLOUR, shards=1)
    path = folder / "train-00000-of-00001.parquet"
    pq.write_table(table, path)
    return path


def test_image_refused_by_parquet_names_the_row(tmp_path: Path, refused: tuple[bytes, str]) -> None:
    content, message = refused
    write_shard(tmp_path, shard([png_bytes(COLOUR[0][0][0]), content], pa.array([1, 2])))
    with pytest.raises(ValueError, match=rf"train-00000-of-00001\.parquet, row 1: the image .*{message}") as caught:
        prepare(CIFAR, tmp_path / "home", tmp_path)
    assert "\n" not in str(caught.value)


def test_image_refused_in_folders_archives_and_pictures(tmp_path: Path, refused: tuple[bytes, str]) -> None:
    content, message = refused
    files = {**FACES, "img_align_celeba/z.png": content}
    write_tree(tmp_path / "a", files)
    write_zip(tmp_path / "b" / "img_align_celeba.zip", files)
    for where in ("a", "b"):
        with pytest.raises(ValueError, match=rf"img_align_celeba/z\.png .*{message}") as caught:
            prepare(CELEBA, tmp_path / "home", tmp_path / where)
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=rf"z\.png .*{message}"):
        read_images(tmp_path / "a" / "img_align_celeba")


TURNED = {  # by orientation: the edge at which viewers show a bar that is stored at the left
    1: "left", 2: "right", 3: "right", 4: "left", 5: "top", 6: "top", 7: "bottom", 8: "bottom",
}  # fmt: skip
EDGES = {"left": (0, 16), "right": (31, 16), "top": (16, 0), "bottom": (16, 31)}


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_decode_orientation_tag_is_applied(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = decode(saved(six_corners(), kind, exif=exif, lossless=True, quality=95), "x", 3)
    red = {edge for edge, place in EDGES.items() if picture.getpixel(place)[0] > 200}
    assert red == {TURNED[orientation]}


def test_read_images_turned_pictures_have_the_shown_size(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for i in range(3):
        picture = Image.fromarray(photo(i, 24, 16).transpose(1, 2, 0))
        (tmp_path / f"{i}.jpg").write_bytes(saved(picture, "JPEG", exif=exif))
    images, _ = read_images(tmp_path)
    assert images.shape == (3, 3, 24, 16)


def test_decode_damaged_orientation_tag_is_ignored() -> None:
    content = saved(six_corners(), "JPEG", exif=b"Exif\0\0garbage", quality=95)
    assert decode(content, "x", 3).getpixel((0, 16))[0] > 200


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (pa.array(["1", "2"]), "label is a column of string, but integers 0..9"),
        (pa.array([0.5, 1.0]), "label is a column of double, but integers"),
        (pa.array([1, None]), "row 1: label is null"),
        (pa.array([1, 10]), "labels 1..10; allowed: 0..9"),
        (pa.array([-1, 1]), "labels -1..1"),
    ],
)
def test_cifar10_wrong_labels_are_refused(tmp_path: Path, labels: pa.Array, message: str) -> None:
    write_shard(tmp_path, shard([png_bytes(image) for image in COLOUR[0][0][:2]], labels))
    with pytest.raises(ValueError, match=f"train-00000-of-00001.parquet.*{message}"):
        prepare(CIFAR, tmp_path / "home", tmp_path)


def test_cifar10_missing_bytes_name_the_row(tmp_path: Path) -> None:
    write_shard(tmp_path, shard([png_bytes(COLOUR[0][0][0]), None], pa.array([1, 2])))
    with pytest.raises(ValueError, match=r"row 1: img\.bytes is null"):
        prepare(CIFAR, tmp_path / "home", tmp_path)


def test_cifar10_value_that_a_dictionary_repeats_is_refused(tmp_path: Path) -> None:
    """Such a value makes a small file large. More rows of it would fill the memory."""
    path = write_shard(tmp_path, shard([bytes(2 << 20)] * 8, pa.array([1] * 8)))
    assert path.stat().st_size < 1_000_000
    with pytest.raises(ValueError, match="more than 1,048,576 bytes"):
        prepare(CIFAR, tmp_path / "home", tmp_path)


@pytest.mark.parametrize("name", ["train-00000-of-100000000000.parquet", "train-00007-of-00005.parquet"])
def test_cifar10_shard_name_that_promises_the_impossible_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(ValueError, match=f"{name} is shard .* but at most 1000 are allowed"):
        prepare(CIFAR, tmp_path / "home", tmp_path)


def test_cifar10_many_missing_shards_are_not_all_named(tmp_path: Path) -> None:
    (tmp_path / "train-00000-of-00900.parquet").touch()
    with pytest.raises(ValueError, match="and 895 more") as caught:
        prepare(CIFAR, tmp_path / "home", tmp_path)
    assert len(str(caught.value)) < 500


def archive(path: Path, members: Callable[[tarfile.TarFile], None]) -> None:
    write_cifar_archive(path, *COLOUR)
    with tarfile.open(path, "w:gz") as tar:
        for name, data in cifar_binaries(*COLOUR).items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        members(tar)


def add_link(kind: bytes, target: str) -> Callable[[tarfile.TarFile], None]:
    def add(tar: tarfile.TarFile) -> None:
        info = tarfile.TarInfo("x/test_batch.bin")
        info.type, info.linkname = kind, target
        tar.addfile(info)

    return add


def add_again(tar: tarfile.TarFile) -> None:
    tar.addfile(tarfile.TarInfo("x/test_batch.bin"))


class Zeros(io.RawIOBase):
    def read(self, size: int = -1) -> bytes:
        return bytes(size)


def add_bomb(tar: tarfile.TarFile) -> None:
    info = tarfile.TarInfo("other")
    info.size = 300 << 20
    tar.addfile(info, Zeros())


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (add_link(tarfile.SYMTYPE, "/etc/passwd"), "there twice"),
        (add_again, "there twice"),
        (add_bomb, "unpacks to more than 268,435,456 bytes"),
    ],
)
def test_cifar10_hostile_archive_is_refused(tmp_path: Path, members, message: str) -> None:
    archive(tmp_path / "cifar-10-binary.tar.gz", members)
    with pytest.raises(ValueError, match=rf"cifar-10-binary\.tar\.gz.*{message}"):
        prepare(CIFAR, tmp_path / "home", tmp_path)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
@pytest.mark.parametrize("target", ["/etc/passwd", "x/test_batch.bin"])
def test_cifar10_member_that_is_no_file_is_refused(tmp_path: Path, kind: bytes, target: str) -> None:
    with tarfile.open(tmp_path / "cifar-10-binary.tar.gz", "w:gz") as tar:
        add_link(kind, target)(tar)
    with pytest.raises(ValueError, match=r"x/test_batch\.bin is not a regular file"):
        prepare(CIFAR, tmp_path / "home", tmp_path)


def test_mnist_gzip_bomb_is_refused(tmp_path: Path) -> None:
    write_mnist(tmp_path, *GREY)
    with gzip.open(tmp_path / "MNIST" / "raw" / f"{MNIST_NAMES[0]}.gz", "wb", compresslevel=1) as file:
        for _ in range(260):
            file.write(bytes(1 << 20))
    with pytest.raises(ValueError, match=f"{MNIST_NAMES[0]}.gz contains more than 268,435,456 bytes"):
        prepare(MNIST, tmp_path / "home", tmp_path)


def test_mnist_header_that_promises_too_much_is_refused(tmp_path: Path) -> None:
    write_mnist(tmp_path, *GREY, compressed=False)
    content = idx_bytes(GREY[0][0][:, 0])
    promise = content[:4] + struct.pack(">III", 2**32 - 1, 2**32 - 1, 2**32 - 1) + content[16:]
    (tmp_path / "MNIST" / "raw" / MNIST_NAMES[0]).write_bytes(promise)
    with pytest.raises(ValueError, match="is damaged: 47,040 values"):
        prepare(MNIST, tmp_path / "home", tmp_path)


def pipe(path: Path) -> None:
    os.mkfifo(path)


def zero_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def folder(path: Path) -> None:
    path.mkdir()


def link_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


SPECIAL = {pipe: "is a named pipe", zero_device: "is a device", link_to_itself: "symbolic links"}


@pytest.mark.parametrize("make", SPECIAL, ids=lambda make: make.__name__)
def test_special_file_among_images_is_refused(tmp_path: Path, make) -> None:
    write_tree(tmp_path, FACES)
    make(tmp_path / "img_align_celeba" / "z.png")
    with pytest.raises(ValueError, match=rf"z\.png .*{SPECIAL[make]}"):
        prepare(CELEBA, tmp_path / "home", tmp_path)
    with pytest.raises(ValueError, match=rf"z\.png .*{SPECIAL[make]}"):
        read_images(tmp_path / "img_align_celeba")


@pytest.mark.parametrize("make", [pipe, zero_device, folder], ids=lambda make: make.__name__)
@pytest.mark.parametrize("name", ["x.npy", "x.npz", "x.safetensors"])
def test_special_file_as_an_array_is_refused(tmp_path: Path, make, name: str) -> None:
    make(tmp_path / name)
    with pytest.raises(ValueError, match=name):
        read_images(tmp_path / name)


def test_cifar10_folder_in_place_of_a_shard_is_refused(tmp_path: Path) -> None:
    write_cifar_parquet(tmp_path, *COLOUR, shards=1)
    (tmp_path / "train-00000-of-00001.parquet").unlink()
    (tmp_path / "train-00000-of-00001.parquet").mkdir()
    with pytest.raises(ValueError, match=r"train-00000-of-00001\.parquet is a folder, but a regular file is needed"):
        prepare(CIFAR, tmp_path / "home", tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_file_or_folder_is_named(tmp_path: Path) -> None:
    write_mnist(tmp_path, *GREY)
    (tmp_path / "MNIST" / "raw" / f"{MNIST_NAMES[0]}.gz").chmod(0)
    with pytest.raises(ValueError, match=rf"{MNIST_NAMES[0]}\.gz cannot be read: Permission denied"):
        prepare(MNIST, tmp_path / "home", tmp_path)


LOOPS = {
    "to itself": ["a -> ."],
    "two to itself": ["a -> .", "b -> ."],
    "to a folder above": ["inner/up -> .."],
    "to a folder above the root": ["inner/up -> ../.."],
    "to each other": ["inner/x -> ../other", "other/y -> ../inner"],
}


@pytest.mark.parametrize("links", LOOPS.values(), ids=LOOPS)
def test_read_images_links_in_a_circle_count_each_picture_once(tmp_path: Path, links: list[str]) -> None:
    root = tmp_path / "images"
    write_tree(root, {f"{i}.png": png_bytes(photo(i, 16, 16)) for i in range(5)})
    write_tree(root, {"inner/5.png": png_bytes(photo(5, 16, 16)), "other/6.png": png_bytes(photo(6, 16, 16))})
    for link in links:
        name, _, target = link.partition(" -> ")
        (root / name).symlink_to(target)
    with pytest.warns(UserWarning, match="left out"):
        images, names = read_images(root)
    assert names == ["0.png", "1.png", "2.png", "3.png", "4.png", "inner/5.png", "other/6.png"]
    assert len(images) == 7


def test_read_images_picture_under_several_names_counts_once(tmp_path: Path) -> None:
    root = tmp_path / "images"
    write_tree(root, {f"{i}.png": png_bytes(photo(i, 16, 16)) for i in range(5)})
    (root / "soft.png").symlink_to("0.png")
    (root / "hard.png").hardlink_to(root / "1.png")
    with pytest.warns(UserWarning, match="left out"):
        assert len(read_images(root)[0]) == 5


def test_read_images_links_to_pictures_elsewhere_are_followed(tmp_path: Path) -> None:
    write_tree(tmp_path / "elsewhere", {f"{i}.png": png_bytes(photo(i, 16, 16)) for i in range(5)})
    root = tmp_path / "images"
    root.mkdir()
    (root / "all").symlink_to(tmp_path / "elsewhere")
    assert read_images(root)[1] == [f"all/{i}.png" for i in range(5)]


def test_zip_with_a_member_twice_is_refused(tmp_path: Path) -> None:
    write_zip(tmp_path / "img_align_celeba.zip", FACES)
    name = "img_align_celeba/3.png"
    with (
        zipfile.ZipFile(tmp_path / "img_align_celeba.zip", "a") as archive,
        pytest.warns(UserWarning, match="Duplicate name"),
    ):
        archive.writestr(name, png_bytes(photo(99, 16, 16)))
    with pytest.raises(ValueError, match=rf"celeba\.zip: {name} is in the archive 2 times, but once is allowed"):
        prepare(CELEBA, tmp_path / "home", tmp_path)


def test_zip_member_that_is_a_link_is_refused(tmp_path: Path) -> None:
    write_zip(tmp_path / "img_align_celeba.zip", FACES)
    info = zipfile.ZipInfo("img_align_celeba/z.png")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "img_align_celeba.zip", "a") as archive:
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(ValueError, match=r"img_align_celeba/z\.png is a symbolic link"):
        prepare(CELEBA, tmp_path / "home", tmp_path)


def test_zip_bomb_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "img_align_celeba.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("img_align_celeba/z.png", bytes(65 << 20))
    with pytest.raises(ValueError, match=r"z\.png contains 68,157,440 bytes, but at most 67,108,864 are read"):
        prepare(CELEBA, tmp_path / "home", tmp_path)


def npy_header(shape: tuple[int, ...], dtype: str = "|u1") -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, {"descr": dtype, "fortran_order": False, "shape": shape})
    return out.getvalue()


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
@pytest.mark.parametrize("shape", [(256_000_000_000_000,), (2**62, 3, 2**62, 9), (-1, 3, 8, 8), (10**30, 3, 8, 8)])
def test_array_header_that_promises_too_much_is_refused(tmp_path: Path, suffix: str, shape: tuple[int, ...]) -> None:
    path, content = tmp_path / f"x{suffix}", npy_header(shape) + bytes(1000)
    if suffix == ".npz":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("images.npy", content)
    else:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"x{suffix} cannot be read: "):
        read_images(path)


def test_npz_bomb_is_refused(tmp_path: Path) -> None:
    with (
        zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("images.npy", "w") as member,
    ):
        member.write(npy_header((100, 3, 512, 512)))
        for _ in range(100):
            member.write(bytes(3 * 512 * 512))
    with pytest.raises(ValueError, match=r"x\.npz cannot be read: it unpacks to more than 100 times its size"):
        read_images(tmp_path / "x.npz")


def test_sparse_array_file_larger_than_the_memory_is_refused(tmp_path: Path) -> None:
    shape = (2**42 // (3 * 64 * 64), 3, 64, 64)
    header = npy_header(shape)
    with (tmp_path / "x.npy").open("wb") as file:
        file.write(header)
        try:
            file.truncate(len(header) + int(np.prod(shape, dtype=np.int64)))
        except OSError:
            pytest.skip("the file system allows no such file")
    with pytest.raises(ValueError, match="this machine's memory"):
        read_images(tmp_path / "x.npy")


def test_npy_fortran_order_is_read_as_numpy_reads_it(tmp_path: Path) -> None:
    images = np.asfortranarray(random_images(6, 3, 16)[0])
    np.save(tmp_path / "x.npy", images)
    assert np.array_equal(read_images(tmp_path / "x.npy")[0], images)

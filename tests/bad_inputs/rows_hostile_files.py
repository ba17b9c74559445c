"""Files that fill the memory, are read for ever, start a program, or hold images that nobody can read rightly."""

from __future__ import annotations

import gzip
import io
import stat
import struct
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from bad_row import Content, Row, command, config, fifo, folder, link, setting
from PIL import Image

EVALUATE = "evaluate --images {dir}/p --reference digits"
SHARD, TEST = "train-00000-of-00001.parquet", "test-00000-of-00001.parquet"
ARCHIVE = "cifar-10-binary.tar.gz"
IDX = "train-images-idx3-ubyte"
OTHERS = ("train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n%%EndComments\nshowpage\n"


def image(kind: str = "PNG", mode: str = "RGB", side: int = 32, **options: object) -> bytes:
    """Return an image file of one colour."""
    out = io.BytesIO()
    Image.new(mode, (side, side), options.pop("color", 0)).save(out, kind, **options)
    return out.getvalue()


def png_header(width: int, height: int) -> bytes:
    """Return a small PNG file that promises `width` x `height` pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


REFUSED: dict[str, tuple[bytes, str]] = {
    "eps": (EPS, "JPEG, PNG, WebP or BMP"),
    "tiff": (image("TIFF"), "JPEG, PNG, WebP or BMP"),
    "gif": (image("GIF", "P"), "JPEG, PNG, WebP or BMP"),
    "pickle": (b"\x80\x04cos\nsystem\n(S'true'\ntR.", "JPEG, PNG, WebP or BMP"),
    "16-bits": (image(mode="I;16"), "16 bits"),
    "cmyk": (image("JPEG", "CMYK"), "CMYK"),
    "transparent": (image(mode="RGBA", color=(1, 2, 3, 0)), "transparent"),
    "animated": (image(save_all=True, append_images=[Image.new("RGB", (32, 32), "red")]), "animation"),
    "bomb": (png_header(20_000, 20_000), "67,108,864"),
    "bomb-header": (png_header(2**31 - 1, 2**31 - 1), "67,108,864"),
    "small": (image(side=1), "at least 8 x 8"),
}


def shard(path: Path, images: list[bytes | None], labels: list[object]) -> None:
    rows = pa.array([{"bytes": data} for data in images], pa.struct([("bytes", pa.binary())]))
    pq.write_table(pa.table({"img": rows, "label": pa.array(labels)}), path)


def cifar(name: str, images: list[bytes | None], labels: list[object], *says: str) -> Row:
    """Return a row for a shard of CIFAR-10."""
    return command(
        f"hostile-cifar-{name}", "data prepare cifar10 --data-dir {dir}", (SHARD, *says), data=True,
        files={SHARD: lambda path: shard(path, images, labels), TEST: lambda path: shard(path, [image()], [1])},
    )  # fmt: skip


def archive(name: str, write: Callable[[tarfile.TarFile], None], *says: str) -> Row:
    """Return a row for CIFAR-10's archive."""

    def make(path: Path) -> None:
        with tarfile.open(path, "w:gz", compresslevel=1) as tar:
            write(tar)

    return command(f"hostile-tar-{name}", "data prepare cifar10 --data-dir {dir}", (ARCHIVE, *says), data=True,
                   files={ARCHIVE: make})  # fmt: skip


def member(kind: bytes, target: str = "") -> Callable[[tarfile.TarFile], None]:
    def write(tar: tarfile.TarFile) -> None:
        info = tarfile.TarInfo("x/test_batch.bin")
        info.type, info.linkname = kind, target
        tar.addfile(info)

    return write


def mnist(name: str, make: Content, *says: str, suffix: str = "") -> Row:
    """Return a row for MNIST's training images."""
    files = {f"{IDX}{suffix}": make} | dict.fromkeys(OTHERS, "x")
    return command(f"hostile-mnist-{name}", "data prepare mnist --data-dir {dir}", (f"{IDX}{suffix}", *says),
                   data=True, files=files)  # fmt: skip


def gzip_bomb(path: Path) -> None:
    with gzip.open(path, "wb", compresslevel=1) as file:
        for _ in range(260):
            file.write(bytes(1 << 20))


def faces(name: str, make: Content, *says: str) -> Row:
    """Return a row for a folder of CelebA with a bad image among the good ones."""
    files = {f"img_align_celeba/{i}.png": image(color=(i, i, i)) for i in range(30)}
    return command(f"hostile-celeba-{name}", "data prepare celeba --data-dir {dir}", ("z.png", *says), data=True,
                   files={**files, "img_align_celeba/z.png": make})  # fmt: skip


def zipped(name: str, write: Callable[[zipfile.ZipFile], None], *says: str) -> Row:
    """Return a row for CelebA's archive."""

    def make(path: Path) -> None:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            write(archive)

    return command(f"hostile-zip-{name}", "data prepare celeba --data-dir {dir}", ("img_align_celeba.zip", *says),
                   data=True, files={"img_align_celeba.zip": make})  # fmt: skip


def zip_twice(archive: zipfile.ZipFile) -> None:
    for colour in (1, 2):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the second name
            archive.writestr("img_align_celeba/z.png", image(color=(colour, 0, 0)))


def zip_link(archive: zipfile.ZipFile) -> None:
    info = zipfile.ZipInfo("img_align_celeba/z.png")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    archive.writestr(info, "/etc/passwd")


def picture(name: str, make: Content, *says: str) -> Row:
    """Return a row for pictures that are judged."""
    return command(f"hostile-picture-{name}", EVALUATE, ("z.png", *says),
                   files={"p/a.png": image(), "p/z.png": make})  # fmt: skip


def array(name: str, file: str, make: Content, *says: str) -> Row:
    """Return a row for an array of pictures that is judged."""
    return command(f"hostile-array-{name}", f"evaluate --images {{dir}}/{file} --reference digits", (file, *says),
                   files={file: make})  # fmt: skip


def npy(shape: str, dtype: str = "|u1") -> bytes:
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + bytes(1000)


def npz(content: bytes) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("images.npy", content)

    return make


def own_images(path: Path) -> None:
    path.mkdir()
    for i in range(3):
        (path / f"{i}.png").write_bytes(image(color=(i, i, i)))


def extractor(name: str, *says: str) -> list[Row]:
    """Return rows for an extractor that a setting and a flag name."""
    short = name.replace(":", "-")
    return [
        setting(f"hostile-extractor-{short}", f"protocol.extractor={name}", (name, *says), home="digits"),
        command(f"hostile-extractor-flag-{short}", f"{EVALUATE} --extractor {name}", (name, *says)),
    ]


FROM_ELSEWHERE = (
    "degradation: {kind: blur, steps: 20, kernel_size: 7, padding: circular, sigma: {schedule: constant, start: 1}}\n"
    "protocol: {extractor: 'evil:run'}\n"
)

ROWS: list[Row] = [
    *(cifar(name, [image(), content], [1, 2], "row 1", says) for name, (content, says) in REFUSED.items()),
    cifar("null-image", [image(), None], [1, 2], "row 1", "null"),
    cifar("null-label", [image(), image()], [1, None], "row 1", "null"),
    cifar("text-labels", [image()], ["1"], "string", "integers 0..9"),
    cifar("float-labels", [image()], [0.5], "double", "integers 0..9"),
    cifar("large-label", [image()], [10], "10", "0..9"),
    cifar("other-size", [image(side=16)], [1], "16 x 16", "32 x 32"),
    cifar("repeated-megabytes", [bytes(2 << 20)] * 4, [1] * 4, "1,048,576"),
    command("hostile-cifar-shards", "data prepare cifar10 --data-dir {dir}", ["of 100000000000", "at most 1000"],
            data=True, files={"train-00000-of-100000000000.parquet": ""}),
    command("hostile-cifar-folder", "data prepare cifar10 --data-dir {dir}", [SHARD, "folder"], data=True,
            files={SHARD: folder, TEST: ""}),
    archive("link", member(tarfile.SYMTYPE, "/etc/passwd"), "not a regular file"),
    archive("link-to-itself", member(tarfile.LNKTYPE, "x/test_batch.bin"), "not a regular file"),
    archive("pipe", member(tarfile.FIFOTYPE), "not a regular file"),
    archive("empty", lambda tar: None, "lacks"),
    mnist("pipe", fifo),
    mnist("zero-device", link("/dev/zero")),
    mnist("gzip-bomb", gzip_bomb, "268,435,456", suffix=".gz"),
    mnist("promise", struct.pack(">HBBIII", 0, 8, 3, 2**32 - 1, 2**32 - 1, 2**32 - 1) + bytes(100), "100 values"),
    *(faces(name, content, says) for name, (content, says) in REFUSED.items()),
    faces("pipe", fifo, "named pipe"),
    faces("zero-device", link("/dev/zero"), "device"),
    faces("link-to-itself", link("z.png"), "symbolic links"),
    faces("link-to-text", link("/etc/passwd"), "JPEG, PNG, WebP or BMP"),
    zipped("twice", zip_twice, "z.png", "2 times"),
    zipped("link", zip_link, "z.png", "symbolic link"),
    zipped("bomb", lambda archive: archive.writestr("z.png", bytes(65 << 20)), "z.png", "67,108,864"),
    *(picture(name, content, says) for name, (content, says) in REFUSED.items()),
    picture("pipe", fifo, "named pipe"),
    picture("zero-device", link("/dev/zero"), "device"),
    array("promise", "i.npy", npy("(256000000000000,)"), "256,000,000,000,000 bytes"),
    array("promise-packed", "i.npz", npz(npy("(256000000000000,)")), "256,000,000,000,000 bytes"),
    array("negative", "i.npy", npy("(-1, 1, 8, 8)"), "bytes"),
    array("objects", "i.npy", npy("(2, 1, 8, 8)", "|O"), "uint8"),
    array("bomb", "i.npz", npz(npy("(100, 3, 512, 512)") + bytes(78_642_600)), "100 times"),
    array("zero-device", "i.npy", link("/dev/zero")),
    array("pipe", "i.npz", fifo),
    command("hostile-folder-few", "data prepare folder --data-dir {dir}/own", ["{dir}/own", "3 images", "at least 20"],
            data=True, files={"own": own_images}),
    command("hostile-folder-nowhere", "data prepare folder --data-dir {dir}/nowhere", "{dir}/nowhere", data=True),
    command("hostile-folder-unnamed", "data prepare folder", ["folder", "--data-dir"], data=True),
    command("hostile-data-dir-long", "data prepare folder --data-dir {dir}/{long}", "{dir}/{long}", data=True),
    *extractor("sys:exit"),
    *extractor("os:abort"),
    *extractor("builtins:input"),
    *extractor("pytest:main", "is defined in"),
    *extractor("json.decoder:JSONDecoder"),
    config("hostile-config-extractor", FROM_ELSEWHERE, ["evil:run"], home="study"),
]  # fmt: skip

from __future__ import annotations

import gzip
import os
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from synthetic_files import (
    MNIST_NAMES,
    idx_bytes,
    png_bytes,
    random_images,
    write_cifar_archive,
    write_cifar_binaries,
    write_cifar_parquet,
    write_mnist,
)

from coldtune.data import Dataset, prepare
from coldtune.data.download import Remote
from coldtune.data.sources.cifar10 import Cifar10
from coldtune.data.sources.mnist import read_idx

MNIST = {"name": "mnist", "image_size": 28}
CIFAR = {"name": "cifar10", "image_size": 32}
GREY = (random_images(60, 1, 28, seed=1), random_images(20, 1, 28, seed=2))
COLOUR = (random_images(60, 3, 32, seed=1), random_images(20, 3, 32, seed=2))
UNREACHABLE = "http://127.0.0.1:9/"


def pairs(images, labels) -> list[tuple[bytes, int]]:
    return sorted((np.asarray(i).tobytes(), int(label)) for i, label in zip(images, labels, strict=True))


def assert_holds(dataset: Dataset, train: tuple, test: tuple) -> None:
    """Assert that images and labels are the published ones, test is whole and validation is a fifth of train."""
    held = [dataset.split(split) for split in ("train", "validation")]
    images, labels = (torch.cat([getattr(split, name) for split in held]) for name in ("images", "labels"))
    assert pairs(images, labels) == pairs(*train)
    assert pairs(dataset.split("test").images, dataset.split("test").labels) == pairs(*test)
    assert dataset.sizes == {"train": 48, "validation": 12, "test": 20}


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("inside", ["", "MNIST", "MNIST/raw"])
def test_mnist_every_layout_is_found_and_read(tmp_path: Path, compressed: bool, inside: str) -> None:
    write_mnist(tmp_path / "files", *GREY, compressed=compressed)
    assert_holds(prepare(MNIST, tmp_path, tmp_path / "files" / inside), *GREY)


@pytest.mark.parametrize("shape", [(3,), (2, 5), (4, 3, 2)])
def test_read_idx_agrees_with_torchvision(tmp_path: Path, shape: tuple[int, ...]) -> None:
    from torchvision.datasets.mnist import read_sn3_pascalvincent_tensor

    path = tmp_path / "some-idx-ubyte"
    path.write_bytes(idx_bytes(np.random.default_rng(0).integers(0, 256, shape)))
    assert np.array_equal(read_idx(path), read_sn3_pascalvincent_tensor(str(path)).numpy())


def layout_parquet(folder: Path, train: tuple, test: tuple) -> None:
    write_cifar_parquet(folder, train, test)


def layout_cifar10_parquet(folder: Path, train: tuple, test: tuple) -> None:
    write_cifar_parquet(folder / "cifar10", train, test, shards=3)


def layout_binaries(folder: Path, train: tuple, test: tuple) -> None:
    write_cifar_binaries(folder / "cifar-10-batches-bin", train, test)


def layout_archive(folder: Path, train: tuple, test: tuple) -> None:
    write_cifar_archive(folder / "cifar10" / "cifar-10-binary.tar.gz", train, test)


LAYOUTS = [layout_parquet, layout_cifar10_parquet, layout_binaries, layout_archive]


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda function: function.__name__)
def test_cifar10_every_layout_is_read(tmp_path: Path, layout) -> None:
    layout(tmp_path / "files", *COLOUR)
    assert_holds(prepare(CIFAR, tmp_path, tmp_path / "files"), *COLOUR)


def test_cifar10_every_layout_has_the_same_fingerprint(tmp_path: Path) -> None:
    fingerprints = set()
    for layout in LAYOUTS:
        layout(tmp_path / layout.__name__, *COLOUR)
        fingerprints.add(prepare({**CIFAR, "image_size": 16}, tmp_path, tmp_path / layout.__name__).fingerprint)
    assert len(fingerprints) == 1


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Serve a folder over HTTP and log the requests. For a file NAME.cut, NAME announces more bytes than it sends."""
    root = tmp_path / "server"
    root.mkdir()

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *args) -> None:
            super().__init__(*args, directory=str(root))

        def do_GET(self) -> None:
            with (root / "log").open("a") as log:
                log.write(self.path + "\n")
            cut = root / f"{self.path}.cut".lstrip("/")
            if not cut.exists():
                return super().do_GET()
            self.send_response(200)
            self.send_header("Content-Length", "1000000")
            self.end_headers()
            self.wfile.write(cut.read_bytes())
            return None

        def log_message(self, *args) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}/", root
        http.shutdown()
        thread.join()


@pytest.fixture
def mnist_mirrors(server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Point torchvision's list of mirrors at the local server, and its checksums at the files of this server."""
    from torchvision import datasets

    address, root = server
    sums = write_mnist(root, *GREY)
    mirrors = [f"{address}MNIST/raw/"]
    monkeypatch.setattr(datasets.MNIST, "mirrors", mirrors)
    monkeypatch.setattr(datasets.MNIST, "resources", list(sums.items()))
    return mirrors


def requests(server: tuple[str, Path]) -> list[str]:
    log = server[1] / "log"
    return log.read_text().split() if log.exists() else []


def test_mnist_is_downloaded_once_into_torchvisions_folder(
    server: tuple[str, Path], mnist_mirrors: list[str], tmp_path: Path
) -> None:
    assert_holds(prepare(MNIST, tmp_path), *GREY)
    assert requests(server) == [f"/MNIST/raw/{name}.gz" for name in MNIST_NAMES]
    prepare({**MNIST, "image_size": 16}, tmp_path)
    assert len(requests(server)) == 4
    downloaded = tmp_path / "data" / "downloads"
    assert prepare(MNIST, tmp_path, downloaded).fingerprint == prepare(MNIST, tmp_path).fingerprint


def test_download_dead_or_damaged_mirror_is_skipped(
    server: tuple[str, Path], mnist_mirrors: list[str], tmp_path: Path
) -> None:
    (server[1] / "bad").mkdir()
    for name in MNIST_NAMES:
        (server[1] / "bad" / f"{name}.gz").write_bytes(b"<html>moved</html>")
    mnist_mirrors[:0] = [UNREACHABLE, f"{server[0]}nothing-here/", f"{server[0]}bad/"]
    assert_holds(prepare(MNIST, tmp_path), *GREY)


def test_mnist_damaged_download_is_refused(server: tuple[str, Path], mnist_mirrors: list[str], tmp_path: Path) -> None:
    file = server[1] / "MNIST" / "raw" / "t10k-images-idx3-ubyte.gz"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(
        ValueError, match=r"t10k-images-idx3-ubyte.gz could not be downloaded .*md5 is .*, published is"
    ):
        prepare(MNIST, tmp_path)
    assert not list((tmp_path / "data").rglob("*t10k-images-idx3-ubyte.gz.*[0-9a-f]"))
    assert not list((tmp_path / "data").glob("mnist*"))


def test_download_damaged_local_file_is_fetched_again(
    server: tuple[str, Path], mnist_mirrors: list[str], tmp_path: Path
) -> None:
    prepare(MNIST, tmp_path)
    file = tmp_path / "data" / "downloads" / "MNIST" / "raw" / f"{MNIST_NAMES[0]}.gz"
    file.write_bytes(file.read_bytes()[:100])
    prepare({**MNIST, "image_size": 16}, tmp_path)
    assert requests(server)[4:] == [f"/MNIST/raw/{MNIST_NAMES[0]}.gz"]


@pytest.fixture
def cifar_archive(server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Serve the binary archive, and make its checksum the published one."""
    path = server[1] / "cifar-10-binary.tar.gz"
    checksum = write_cifar_archive(path, *COLOUR)
    remote = Remote(path.name, (f"{server[0]}{path.name}",), "sha256", checksum)
    monkeypatch.setattr(Cifar10, "archive", remote)
    return path


def test_cifar10_is_downloaded_once(server: tuple[str, Path], cifar_archive: Path, tmp_path: Path) -> None:
    assert_holds(prepare(CIFAR, tmp_path), *COLOUR)
    prepare({**CIFAR, "image_size": 16}, tmp_path)
    assert requests(server) == ["/cifar-10-binary.tar.gz"]


def test_cifar10_damaged_download_is_refused(cifar_archive: Path, tmp_path: Path) -> None:
    cifar_archive.write_bytes(cifar_archive.read_bytes() + b"x")
    with pytest.raises(
        ValueError, match=r"cifar-10-binary.tar.gz could not be .*sha256 is .*, published is .*data-dir"
    ):
        prepare(CIFAR, tmp_path)
    assert not list((tmp_path / "data").rglob("cifar-10-binary.tar.gz"))


def test_download_that_breaks_off_is_refused(cifar_archive: Path, tmp_path: Path) -> None:
    cifar_archive.with_name(f"{cifar_archive.name}.cut").write_bytes(cifar_archive.read_bytes()[:5000])
    with pytest.raises(ValueError, match="could not be downloaded"):
        prepare(CIFAR, tmp_path)
    assert not [p for p in (tmp_path / "data" / "downloads").rglob("*") if p.is_file() and p.suffix != ".lock"]


@pytest.mark.parametrize(
    ("config", "files"), [(MNIST, MNIST_NAMES), (CIFAR, ("train-*.parquet", "cifar-10-binary.tar.gz"))]
)
def test_prepare_offline_names_files_and_data_dir(
    config: dict, files: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision import datasets

    monkeypatch.setattr(datasets.MNIST, "mirrors", [UNREACHABLE])
    monkeypatch.setattr(Cifar10, "archive", Remote("cifar-10-binary.tar.gz", (UNREACHABLE,), "sha256", ""))
    with pytest.raises(ValueError, match=config["name"]) as error:
        prepare(config, tmp_path)
    for part in (*files, "data-dir", "internet", UNREACHABLE):
        assert part in str(error.value)


@pytest.mark.parametrize("config", [MNIST, CIFAR])
def test_prepare_empty_or_missing_data_dir_is_refused(tmp_path: Path, config: dict) -> None:
    (tmp_path / "files").mkdir()
    with pytest.raises(ValueError, match=rf"data-dir = .*files.*: no {config['name']} there; it needs"):
        prepare(config, tmp_path, tmp_path / "files")
    with pytest.raises(ValueError, match=r"data-dir = .*nowhere.*: no such directory"):
        prepare(config, tmp_path, tmp_path / "nowhere")


def test_prepare_missing_published_files_are_named(tmp_path: Path) -> None:
    write_mnist(tmp_path, *GREY)
    (tmp_path / "MNIST" / "raw" / f"{MNIST_NAMES[3]}.gz").unlink()
    with pytest.raises(ValueError, match=f"lacks a part of MNIST: {MNIST_NAMES[3]}"):
        prepare(MNIST, tmp_path, tmp_path)
    write_cifar_parquet(tmp_path / "parquet", *COLOUR)
    (tmp_path / "parquet" / "train-00001-of-00002.parquet").unlink()
    with pytest.raises(ValueError, match=r"lacks a part of CIFAR-10: train-00001-of-00002\.parquet"):
        prepare(CIFAR, tmp_path, tmp_path / "parquet")
    write_cifar_binaries(tmp_path / "binary", *COLOUR)
    (tmp_path / "binary" / "test_batch.bin").unlink()
    with pytest.raises(ValueError, match=r"lacks a part of CIFAR-10: test_batch\.bin"):
        prepare(CIFAR, tmp_path, tmp_path / "binary")


def test_cifar10_pickles_are_not_read(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    (folder / "data_batch_1").write_bytes(b"cos\nsystem\n(S'touch pwned'\ntR.")
    with pytest.raises(ValueError, match="the Python version is not read"):
        prepare(CIFAR, tmp_path, tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (f"{MNIST_NAMES[0]}.gz", gzip.compress(idx_bytes(GREY[0][0][:, 0]))[:-20], "is damaged"),
        (f"{MNIST_NAMES[0]}.gz", b"<html>", "is damaged"),
        (f"{MNIST_NAMES[0]}.gz", gzip.compress(idx_bytes(GREY[0][0][:, 0])[:-1]), "is damaged: 47,039 values"),
        (f"{MNIST_NAMES[0]}.gz", gzip.compress(b"PNG is not idx"), "not an idx file"),
        (f"{MNIST_NAMES[0]}.gz", gzip.compress(idx_bytes(GREY[0][1])), "but square grey images"),
        (f"{MNIST_NAMES[1]}.gz", gzip.compress(idx_bytes(GREY[0][1][:-1])), "a label 0..9 for each of 60"),
        (f"{MNIST_NAMES[1]}.gz", gzip.compress(idx_bytes(GREY[0][1] + 1)), "a label 0..9"),
    ],
    ids=["torn gzip", "HTML", "torn array", "not idx", "no images", "missing label", "label 10"],
)
def test_mnist_damaged_file_is_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    write_mnist(tmp_path, *GREY)
    (tmp_path / "MNIST" / "raw" / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name}.*{message}"):
        prepare(MNIST, tmp_path, tmp_path)


def shard(images: list[bytes], labels: list[int], column: str = "img") -> bytes:
    rows = pa.array([{"bytes": data, "path": None} for data in images], pa.struct([("bytes", pa.binary())]))
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({column: rows, "label": pa.array(labels, pa.int64())}), sink)
    return sink.getvalue().to_pybytes()


GOOD = png_bytes(COLOUR[0][0][0])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PAR1 torn", "is damaged"),
        (shard([GOOD], [1], column="image"), "columns image, label; needed: img"),
        (shard([GOOD[:200]], [1]), "row 0: the image is damaged"),
        (shard([GOOD, GOOD[:-200]], [1, 1]), "row 1: the image is damaged"),
        (shard([b"not an image"], [1]), "row 0: the image is not a JPEG, PNG"),
        (shard([png_bytes(COLOUR[0][0][0][:, :16])], [1]), "image is 32 x 16 pixels, but only 32 x 32 is allowed"),
        (shard([GOOD], [10]), r"labels 10\.\.10; allowed: 0\.\.9"),
        (shard([], []), "contains no images"),
    ],
)
def test_cifar10_damaged_shard_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    write_cifar_parquet(tmp_path, *COLOUR)
    (tmp_path / "train-00000-of-00002.parquet").write_bytes(content)
    with pytest.raises(ValueError, match=f"train-00000-of-00002.parquet.*{message}"):
        prepare(CIFAR, tmp_path, tmp_path)


def test_cifar10_damaged_binary_file_or_archive_is_named(tmp_path: Path) -> None:
    write_cifar_binaries(tmp_path / "binary", *COLOUR)
    file = tmp_path / "binary" / "data_batch_3.bin"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"data_batch_3.bin is damaged: .*3073-byte records"):
        prepare(CIFAR, tmp_path, tmp_path / "binary")
    archive = tmp_path / "archive" / "cifar-10-binary.tar.gz"
    write_cifar_archive(archive, *COLOUR)
    archive.write_bytes(archive.read_bytes()[:50_000])
    with pytest.raises(ValueError, match=r"cifar-10-binary.tar.gz is damaged"):
        prepare(CIFAR, tmp_path, tmp_path / "archive")


REAL = os.environ.get("COLDTUNE_TEST_DATA")


@pytest.mark.skipif(not REAL, reason="needs the published files: COLDTUNE_TEST_DATA=DIR with MNIST/raw and cifar10")
@pytest.mark.parametrize(("name", "train"), [("mnist", 50_000), ("cifar10", 40_000)])
def test_prepare_published_files_have_the_published_counts(tmp_path: Path, name: str, train: int) -> None:
    dataset = prepare({"name": name, "image_size": 16}, tmp_path, REAL)
    assert dataset.sizes == {"train": train, "validation": 10_000, "test": 10_000}

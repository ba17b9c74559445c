"""A store in a bucket: claims, attempts, local copies, outages, and locations that cannot be used."""

from __future__ import annotations

import os
import threading
import time
import urllib.request
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from store_places import Bucket

import servers
from coldtune.store import object_files as store_object
from coldtune.store import store as store_module
from coldtune.store.bucket import Bucket as Objects
from coldtune.store.bucket import TransientError
from coldtune.store.download_cache import DownloadCache
from coldtune.store.location import StoreLocation
from coldtune.store.object_files import CLAIMS, ObjectFiles
from coldtune.store.store import Store


def fill(text: str):
    def write(directory: Path) -> None:
        (directory / "a.txt").write_text(text)
        (directory / "b.txt").write_text(text)

    return write


def texts(store: Store, key: str = "k") -> tuple[str, str]:
    entry = store.find("kind", key)
    assert entry is not None
    return (entry.path / "a.txt").read_text(), (entry.path / "b.txt").read_text()


def others(bucket: Bucket, folder: Path) -> Store:
    """Return the same store as another machine sees it, without our local copies."""
    return Store(StoreLocation(bucket.at.where, str(folder)))


def test_create_concurrently_has_one_winner(bucket: Bucket, tmp_path: Path) -> None:
    files = [others(bucket, tmp_path / str(number)).files for number in range(4)]

    def create(number: int) -> bool:
        return files[number % 4].create(f".leases/{number // 8}", uuid.uuid4().hex.encode())

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(create, range(24)))
    assert [sum(won[name * 8 : name * 8 + 8]) for name in range(3)] == [1, 1, 1]
    assert bucket.names(CLAIMS) == set()


def test_write_exclusively_looks_again_after_its_claim(bucket: Bucket) -> None:
    """The name was free at the first look, but not at the second, after the claim."""
    files, answers = bucket.files, iter([None, b"another's", b"another's"])
    assert not files._write_exclusively("x", lambda: next(answers), b"mine", lambda: pytest.fail("written"))


def test_create_beside_another_claim_waits(bucket: Bucket) -> None:
    files, name = bucket.files, ".leases/x"
    claim = f"{CLAIMS}/.leases+x._{uuid.uuid4().hex}"
    files.bucket.put(claim, b"")
    ended = threading.Event()

    def create() -> None:
        assert files.create(name, b"mine")
        ended.set()

    thread = threading.Thread(target=create)
    thread.start()
    assert not ended.wait(1.0), "it waits for the other claim"
    assert not files.has(name)
    files.bucket.delete(claim)
    thread.join(60)
    assert ended.is_set()
    assert files.bucket.get(name) == b"mine"


def test_create_beside_an_expired_claim_succeeds(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket.files.bucket.put(f"{CLAIMS}/.leases+x._dead", b"")
    monkeypatch.setattr(store_object, "_CLAIM_EXPIRES_S", 2.0)  # our own claim counts for half of it
    time.sleep(3.1)  # the server's times are whole seconds
    assert bucket.files.create(".leases/x", b"mine")


class Unsteady(Objects):
    """Objects whose next writes to some names fail, before or after the data was written."""

    def __init__(self, bucket: Objects, ending: str, failures: int, done: bool) -> None:
        super().__init__(bucket.filesystem, bucket.root)
        self.ending, self.failures, self.done = ending, failures, done

    def put(self, name: str, data: bytes, patience_s: float | None = None) -> None:
        if name.endswith(self.ending) and self.failures:
            self.failures -= 1
            if self.done:
                super().put(name, data)
            raise TransientError("NETWORK_CONNECTION")
        super().put(name, data, patience_s)


@pytest.mark.parametrize("done", [False, True])
def test_put_with_lost_answer_counts_once(bucket: Bucket, done: bool) -> None:
    files = bucket.files
    unsteady = ObjectFiles(Unsteady(files.bucket, "manifest.json", 1, done), files.copies, files.shown)
    store = Store(bucket.at, files=unsteady)
    store.put("kind", "k", fill("x"))
    assert texts(store) == ("x", "x")
    assert bucket.being_written() == 0
    lease = ObjectFiles(Unsteady(files.bucket, ".leases/x", 1, done), files.copies, files.shown)
    assert lease.create(".leases/x", b"mine")
    assert not lease.create(".leases/x", b"mine")


class Failing:
    """A file system whose first calls fail."""

    def __init__(self, filesystem: Any, failures: int, text: str) -> None:
        self.filesystem, self.failures, self.text = filesystem, failures, text

    def __getattr__(self, name: str) -> Any:
        if self.failures:
            self.failures -= 1
            raise OSError(self.text)
        return getattr(self.filesystem, name)


def test_bucket_retries_outages_but_not_refusals(bucket: Bucket) -> None:
    bucket.files.bucket.put("x", b"1")
    real = bucket.files.bucket
    busy = "AWS Error SLOW_DOWN during PutObject operation"
    assert Objects(Failing(real.filesystem, 1, busy), real.root).get("x") == b"1"
    with pytest.raises(TransientError, match="SLOW_DOWN"):
        Objects(Failing(real.filesystem, 1, busy), real.root, patience_s=0.0).get("x")
    with pytest.raises(PermissionError):
        Objects(Failing(real.filesystem, 1, "AWS Error ACCESS_DENIED during HeadObject"), real.root).get("x")
    with pytest.raises(FileNotFoundError):
        real.get("none")


def test_find_with_several_attempts_sees_one_whole_attempt(bucket: Bucket, tmp_path: Path) -> None:
    store, objects = bucket.store(), bucket.files.bucket
    store.put("kind", "k", fill("x"))
    (attempt,) = {name.split("/")[0] for name, _ in objects.walk("kind/k")}
    for name in ("a.txt", "b.txt"):
        objects.put(f"kind/k/_{'0' * 32}/{name}", b"half")  # an attempt killed before its manifest
        objects.copy(f"kind/k/{attempt}/{name}", f"kind/k/_{'f' * 32}/{name}")
    objects.copy(f"kind/k/{attempt}/manifest.json", f"kind/k/_{'f' * 32}/manifest.json")  # a second whole attempt
    assert texts(others(bucket, tmp_path / "other")) == ("x", "x")
    assert not store.files.publish(store.files.scratch(), "kind/k")
    assert {name.split("/")[2] for name, _ in store.files.leftovers()} == {f"_{'0' * 32}", f"_{'f' * 32}"}
    store.remove("kind", "k")
    assert bucket.names() == set()


def test_find_damaged_local_copy_is_downloaded_again(bucket: Bucket, tmp_path: Path) -> None:
    bucket.store().put("kind", "k", fill("x"))
    other = others(bucket, tmp_path / "other")
    assert texts(other) == ("x", "x")
    entry = other.find("kind", "k")
    assert entry is not None
    before = (entry.path / "a.txt").stat()
    (entry.path / "a.txt").write_text("y")
    os.utime(entry.path / "a.txt", ns=(before.st_atime_ns, before.st_mtime_ns))
    store_module._VERIFIED.clear()
    assert texts(other) == ("x", "x"), "without a warning, because the entry itself is whole"
    assert bucket.torn() == []


def test_put_keeps_a_local_copy(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Objects, "download", lambda *_: pytest.fail("downloaded"))
    entry = bucket.store().put("kind", "k", fill("x"))
    assert texts(bucket.store()) == ("x", "x")
    assert bucket.files.address(entry.path) == f"{bucket.at.shown}/kind/k"
    assert bucket.store().at_address(f"{bucket.at.shown}/kind/k") == entry.path


def test_download_cache_trim_removes_least_recently_used_first(tmp_path: Path) -> None:
    copies = DownloadCache(tmp_path, limit_gb=2.5e-6)
    for number, days in enumerate((5, 3, 4, 0)):
        folder = copies.folder(f"kind/{number}", f"_{number:032d}")
        folder.mkdir(parents=True)
        (folder / "a").write_bytes(b"x" * 1000)
        os.utime(folder, (time.time() - days * 86400,) * 2)
    copies.trim(every_s=0.0)
    assert sorted(path.parent.name for path in tmp_path.glob("kind/*/_*")) == ["1", "3"]
    copies.limit = 0.0
    copies.trim(every_s=0.0)
    assert sorted(path.parent.name for path in tmp_path.glob("kind/*/_*")) == ["3"], "used today"


@pytest.fixture(scope="module")
def strict() -> Iterator[servers.S3]:
    """A server that checks credentials."""
    try:
        server = servers.S3()
    except servers.MissingError as error:
        pytest.skip(str(error))
    try:
        server.start()
        server.bucket()
        address, plain = f"http://{server.endpoint}/moto-api/reset-auth", {"Content-Type": "text/plain"}
        request = urllib.request.Request(address, data=b"0", method="POST", headers=plain)
        urllib.request.urlopen(request, timeout=servers.PATIENCE).close()
        yield server
    finally:
        server.close()


def test_location_check_leaves_no_traces(bucket: Bucket, tmp_path: Path) -> None:
    bucket.at.check()
    assert bucket.names() == set()
    StoreLocation.of(tmp_path / "folder").check()
    assert not (tmp_path / "folder").exists()


def test_location_check_wrong_cache_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLDTUNE_STORE_CACHE_GB", "20GB")
    with pytest.raises(ValueError, match="COLDTUNE_STORE_CACHE_GB = '20GB': must be a number of gigabytes"):
        StoreLocation("s3://bucket/store?region=x", str(tmp_path)).check()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nonsense://bucket/store", "--store nonsense://bucket/store: Unrecognized filesystem.*allowed: a folder, or"),
        ("s3:///store?region=x", "--store s3:"),
        ("s3://bucket/store?region=x&nonsense=1", "--store s3://bucket/store: Unexpected query parameter.*nonsense"),
    ],
)
def test_location_check_wrong_url_is_refused(url: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        StoreLocation.of(url).check()


def test_location_check_missing_bucket_is_refused(bucket: Bucket) -> None:
    at = StoreLocation.of(bucket.at.where.replace("s3://bucket-", "s3://another-"))
    with pytest.raises(ValueError, match=r"--store s3://another-\d+/store: cannot be used: there is no such bucket"):
        at.check()


def test_location_check_wrong_credentials_are_refused(strict: servers.S3, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in strict.environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=r"--store s3://bucket-0/store: cannot be used: .*credentials"):
        StoreLocation.of(strict.url("bucket-0")).check()


@pytest.mark.slow
def test_location_check_unreachable_server_is_refused(bucket: Bucket) -> None:
    unreachable = r"--store s3://bucket/store: cannot be used: the server cannot be reached"
    with servers.refusing_port() as port, pytest.raises(ValueError, match=unreachable):
        StoreLocation.of(f"s3://user:secret@bucket/store?scheme=http&endpoint_override=127.0.0.1:{port}").check()

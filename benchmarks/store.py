"""Measure the store: finding, putting and listing entries, and leases that many processes want at once.

    uv run benchmarks/store.py [--dir DIR] [--repeat 5] [--url s3://BUCKET/PREFIX]

Prints Markdown tables. The store is created in DIR, so DIR chooses the file system that is measured. The default is a
temporary folder. With --url, the only table compares the same operations at the URL and in DIR, measured alternately.
All entries that were created at the URL are removed. Times are medians of `--repeat`. The files are in the page cache,
like those of a trial that has just finished.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import multiprocessing
import os
import signal
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from coldtune.store import store as store_module
from coldtune.store.gc import Retention, find_garbage, list_entries
from coldtune.store.location import StoreLocation
from coldtune.store.provenance import git_commit, made
from coldtune.store.store import Store

LARGE, SMALL = 200_000_000, 1_000
MANY = 10_000
FORK = multiprocessing.get_context("fork")  # the children need no imports of their own


def fill(size: int, directory: Path) -> None:
    (directory / "data").write_bytes(os.urandom(size))
    (directory / "log.json").write_text("{}")


def timed(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def median(call: Callable[[], object], repeat: int, before: Callable[[], object] = lambda: None) -> float:
    times = []
    for _ in range(repeat):
        before()
        times.append(timed(call))
    return statistics.median(times)


def shown(seconds: float) -> str:
    for unit, scale in (("s", 1.0), ("ms", 1e3)):
        if seconds * scale >= 0.95:
            return f"{seconds * scale:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"


def row(*cells: object) -> None:
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def forget() -> None:
    store_module._VERIFIED.clear()


def sizes(root: Path, repeat: int) -> None:
    row("entry", "put", "write and fsync alone", "find, first in a process", "SHA-256 alone", "find again", "missing")
    row("--:", "--:", "--:", "--:", "--:", "--:", "--:")
    store = Store(root)
    for size in (SMALL, LARGE):
        content = os.urandom(size)
        keys = iter(range(1_000_000))

        def put(content: bytes = content, keys: object = keys) -> None:
            def write(directory: Path) -> None:
                (directory / "data").write_bytes(content)

            store.put(f"put{len(content)}", str(next(keys)), write)  # type: ignore[call-overload]

        def alone(content: bytes = content, keys: object = keys) -> None:
            with (root / f"alone-{next(keys)}").open("wb") as handle:  # type: ignore[call-overload]
                handle.write(content)
                handle.flush()
                os.fsync(handle.fileno())

        putting, writing = median(put, repeat), median(alone, repeat)
        store.put("find", str(size), partial(fill, size))
        time.sleep(2.5)  # until it is old enough to be remembered
        find = partial(store.find, "find", str(size))
        first = median(find, repeat, forget)
        hashing = median(partial(hashlib.sha256, content), repeat)
        again = median(find, 50)
        missing = median(partial(store.find, "find", "none"), 50)
        row(f"{size:,} B", *map(shown, (putting, writing, first, hashing, again, missing)))


def many(root: Path, repeat: int) -> None:
    store = Store(root)
    putting = timed(lambda: [store.put("many", f"{i:064x}", partial(fill, SMALL)) for i in range(MANY)])
    time.sleep(2.5)
    keys = [f"{i * 7919 % MANY:064x}" for i in range(200)]
    first = timed(lambda: [store.find("many", key) for key in keys]) / len(keys)
    again = timed(lambda: [store.find("many", key) for key in keys]) / len(keys)
    missing = median(partial(store.find, "many", "none"), 50)
    listing = median(partial(list_entries, store), min(repeat, 3))
    wasting = median(partial(find_garbage, store, Retention(), 0), min(repeat, 3))
    row("entries", "put, each", "find, first", "find again", "missing", "`store ls` (inventory)", "`store gc` (plan)")
    row(*["--:"] * 7)
    row(f"{MANY:,}", *map(shown, (putting / MANY, first, again, missing, listing, wasting)))


def worker(root: Path, keys: int, seconds: float, start: object, results: object) -> None:
    store = Store(root, on_wait=lambda text: None)
    built = 0

    def build(directory: Path) -> None:
        nonlocal built
        built += 1
        time.sleep(seconds)
        fill(SMALL, directory)

    start.wait()  # type: ignore[attr-defined]
    for key in range(keys):
        store.get("kind", str(key), build)
    results.put(built)  # type: ignore[attr-defined]


def contended(root: Path, count: int, keys: int, seconds: float) -> tuple[float, int]:
    """Return the seconds until `count` processes have all keys, and how many entries were built."""
    start, results = FORK.Event(), FORK.Queue()
    workers = [FORK.Process(target=worker, args=(root, keys, seconds, start, results)) for _ in range(count)]
    for process in workers:
        process.start()
    time.sleep(0.5)
    started = time.perf_counter()
    start.set()
    built = sum(results.get() for _ in workers)
    ended = time.perf_counter() - started
    for process in workers:
        process.join()
    return ended, built


def leases(root: Path, repeat: int) -> None:
    store = Store(root / "free")

    def hold() -> None:
        with store.lease("kind", "key"):
            pass

    print(f"A lease that nobody else wants: {shown(median(hold, 50))} to take and give back.\n")
    row("processes", "keys, each", "a build", "wall time", "builds", "builds' time, alone")
    row(*["--:"] * 6)
    for count in (1, 8):
        for keys, seconds in ((20, 0.05), (20, 0.5)):
            ended, built = contended(root / f"{count}-{seconds}", count, keys, seconds)
            row(count, keys, shown(seconds), shown(ended), built, shown(keys * seconds))


def holder(root: Path, lease_s: float) -> None:
    with Store(root, lease_s=lease_s).lease("kind", "key"):
        time.sleep(3600)


def taken_over(root: Path, lease_s: float, number: signal.Signals) -> float:
    """Return the seconds from a signal to the holder of a lease until another process holds it."""
    process = FORK.Process(target=holder, args=(root, lease_s))
    process.start()
    while not list(root.glob(".leases/*.first")):
        time.sleep(0.01)
    assert process.pid is not None
    os.kill(process.pid, number)

    def take() -> None:
        with Store(root, on_wait=lambda text: None).lease("kind", "key"):
            pass

    seconds = timed(take)
    process.kill()
    process.join()
    return seconds


def alternately(places: dict[str, Store], call: Callable[[Store], object], repeat: int) -> dict[str, float]:
    """Return the median time of `call(store)` for each place, measured in turns."""
    times: dict[str, list[float]] = {name: [] for name in places}
    for _ in range(repeat):
        for name, store in places.items():
            times[name].append(timed(partial(call, store)))
    return {name: statistics.median(taken) for name, taken in times.items()}


def remote(url: str, root: Path, repeat: int) -> None:
    """Compare a local store with a store in object storage, for the operations of a trial's stages."""
    places = {
        "local": Store(root / "local", on_wait=print),
        "object": Store(StoreLocation(url, str(root / "copies")), on_wait=print),
        "object, elsewhere": Store(StoreLocation(url, str(root / "others-copies")), on_wait=print),
    }
    two, keys = {name: places[name] for name in ("local", "object")}, itertools.count()

    def hold(store: Store) -> None:
        with store.lease("kind", "key"):
            pass

    def without_copies(store: Store) -> None:
        store.files.discard_copies(f"find/{size}")
        forget()
        store.find("find", str(size))

    row("operation", "entry", *places)
    row(":--", "--:", "--:", "--:", "--:")
    for size in (SMALL, LARGE // 10):
        content = os.urandom(size)

        def write(directory: Path, content: bytes = content) -> None:
            (directory / "data").write_bytes(content)
            (directory / "log.json").write_text("{}")

        def put(store: Store, write: Callable[[Path], None] = write) -> None:
            store.put("put", str(next(keys)), write)

        for store in two.values():
            store.put("find", str(size), write)
        time.sleep(2.5)  # until it is old enough to be remembered

        def first(store: Store, size: int = size) -> None:
            forget()
            store.find("find", str(size))

        def line(operation: str, taken: dict[str, float], size: int = size) -> None:
            row(operation, f"{size:,} B", *(shown(taken[name]) if name in taken else "-" for name in places))

        line("put", alternately(two, put, repeat))
        download = {"object, elsewhere": places["object, elsewhere"]}
        line(
            "find, first in a process", alternately(two, first, repeat) | alternately(download, without_copies, repeat)
        )
        line("find again", alternately(two, lambda store, size=size: store.find("find", str(size)), 20))
    for operation, call, times in (
        ("find a missing one", lambda store: store.find("find", "none"), 20),
        ("a lease, taken and given back", hold, repeat),
        (f"`store ls` of {2 + 2 * repeat}", list_entries, repeat),
    ):
        taken = alternately(two, call, times)
        row(operation, "", *(shown(taken[name]) if name in taken else "-" for name in places))
    places["object"].files.remove("put")
    places["object"].files.remove("find")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dir", type=Path)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--url", metavar="URL", help="of object storage, whose credentials are in the environment")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="store-", dir=options.dir) as scratch:
        root = Path(scratch)
        machine = made()
        print(f"Commit {git_commit()}; {machine['cpus']} CPUs ({machine['device']}), Python {machine['python']}.\n")
        if options.url:
            StoreLocation.of(options.url).check()
            remote(options.url, root, options.repeat)
            return
        sizes(root / "sizes", options.repeat)
        print()
        many(root / "many", options.repeat)
        print()
        leases(root / "leases", options.repeat)
        print()
        row("its holder", "lease", "taken over after")
        row(":--", "--:", "--:")
        killed = taken_over(root / "killed", 30.0, signal.SIGKILL)
        row("killed, on this machine", "30 s", shown(killed))
        silent = taken_over(root / "silent", 5.0, signal.SIGSTOP)
        row("silent (SIGSTOP), as on a host that was cut off", "5 s", shown(silent))


if __name__ == "__main__":
    main()

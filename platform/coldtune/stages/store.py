"""The store: a directory that remembers finished work under the key of what determined it.

    <root>/<kind>/<key>/...files, manifest.json        one entry
    <root>/.writing/<unique>/                          an entry being written; renamed when it is whole
    <root>/.torn/<kind>-<key>-<unique>/                what was found damaged, kept for a look

An entry is believed only if its manifest names it and every file has the size and SHA-256 that the manifest says:
a torn, foreign or hand-edited entry is set aside with a warning and rebuilt. Entries are never changed in place.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
import uuid
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Entry:
    """A finished, verified piece of work: its directory and what its manifest says about it."""

    kind: str
    key: str
    path: Path
    about: Mapping[str, Any]


class Store:
    """Finished work by (kind, key) under one directory, safe against kills and against concurrent writers.

    kind: a short word (`train`, `sample`, ...); key: letters, digits, `-` and `/` (a checkpoint's key is
    `<training key>/<step>`). The directory may be on any file system whose rename is atomic (a local disk, NFS).
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)

    def find(self, kind: str, key: str) -> Entry | None:
        """The entry, or None where there is none or what is there cannot be believed (it is then set aside)."""
        path = self.root / kind / key
        if not path.is_dir():
            return None
        problem, about = _verify(path, kind, key)
        if problem is None:
            return Entry(kind, key, path, about)
        if path.is_dir():  # another process may have set it aside in the meantime
            self._set_aside(path, kind, key, problem)
        return None

    def put(self, kind: str, key: str, write: Callable[[Path], Mapping[str, Any] | None]) -> Entry:
        """Call `write(directory)` to fill a fresh directory, then publish it as the entry by one rename.

        What `write` returns is kept in the manifest. If another process published the same key first, its entry
        stays and is returned: equal keys mean equal work.
        """
        writing = self.root / ".writing" / uuid.uuid4().hex
        writing.mkdir(parents=True)
        try:
            started = time.time()
            about = {"seconds": None, **(write(writing) or {})}
            if about["seconds"] is None:
                about["seconds"] = round(time.time() - started, 3)
            _seal(writing, kind, key, about)
            target = self.root / kind / key
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.rename(writing, target)
            except OSError:
                existing = self.find(kind, key)
                if existing is not None:
                    return existing
                os.rename(writing, target)  # what was there was torn and has been set aside
            _sync(target.parent)
        finally:
            shutil.rmtree(writing, ignore_errors=True)
        entry = self.find(kind, key)
        assert entry is not None, f"{kind}/{key} vanished while it was published"
        return entry

    def get(self, kind: str, key: str, build: Callable[[Path], Mapping[str, Any] | None]) -> tuple[Entry, bool]:
        """The entry and whether it was found; a missing one is built by `build(directory)` first."""
        entry = self.find(kind, key)
        return (entry, True) if entry is not None else (self.put(kind, key, build), False)

    def drop(self, kind: str, key: str) -> None:
        """Remove an entry (renamed first, so that no reader sees half of it)."""
        path, trash = self.root / kind / key, self.root / ".writing" / uuid.uuid4().hex
        trash.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.rename(path, trash)
        except FileNotFoundError:
            return
        shutil.rmtree(trash, ignore_errors=True)

    def _set_aside(self, path: Path, kind: str, key: str, problem: str) -> None:
        torn = self.root / ".torn" / f"{kind}-{key.replace('/', '-')}-{uuid.uuid4().hex[:8]}"
        torn.parent.mkdir(parents=True, exist_ok=True)
        warnings.warn(f"store entry {kind}/{key} is not believed: {problem}; set aside as {torn}", stacklevel=3)
        with contextlib.suppress(FileNotFoundError):
            os.rename(path, torn)


class StoreCache:
    """The cache that `coldtune.metrics` takes by argument, kept in a store as safetensors."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def get(self, kind: str, key: str, build: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """The tensors under (kind, key), computed by `build` once."""
        from safetensors.torch import load_file, save_file

        def write(directory: Path) -> None:
            save_file({name: value.contiguous() for name, value in build().items()}, directory / "data.safetensors")

        entry, _ = self.store.get(kind, key, write)
        return load_file(entry.path / "data.safetensors")


class StoreCheckpoints:
    """The checkpoints of one training as store entries `train/<key>/<step>`; picklable, for training workers.

    final: the step at which this training ends. Checkpoints at a final step stay (later stages and longer
    trainings build on them); of the others only the newest two are kept.
    """

    KIND = "train"

    def __init__(self, root: Path | str, key: str, final: int) -> None:
        self.root, self.key, self.final = Path(root), key, final
        self._started, self._before = time.time(), 0.0

    def latest(self, at_most: int) -> tuple[int, Path] | None:
        """The newest believable checkpoint with step <= `at_most`: (step, directory)."""
        store = Store(self.root)
        for step in sorted(self._steps(), reverse=True):
            if step <= at_most and (entry := store.find(self.KIND, self._name(step))) is not None:
                self._started, self._before = time.time(), float(entry.about["seconds"])
                return step, entry.path
        return None

    def seconds(self, step: int) -> float:
        """Seconds of training that the checkpoint of `step` stands for, over all the runs that led to it."""
        entry = Store(self.root).find(self.KIND, self._name(step))
        return float(entry.about["seconds"]) if entry else 0.0

    def save(self, step: int, write: Callable[[Path], None]) -> None:
        """Publish the checkpoint of `step`, filled by `write(directory)`, and drop the ones no longer needed."""
        store = Store(self.root)

        def fill(directory: Path) -> dict[str, Any]:
            write(directory)
            return {"step": step, "final": step == self.final, "seconds": self._before + time.time() - self._started}

        store.put(self.KIND, self._name(step), fill)
        passing = [s for s in sorted(self._steps()) if not self._is_final(s)]
        for old in passing[:-2]:
            store.drop(self.KIND, self._name(old))

    def _name(self, step: int) -> str:
        return f"{self.key}/{step:08d}"

    def _steps(self) -> list[int]:
        folder = self.root / self.KIND / self.key
        return [int(p.name) for p in folder.iterdir() if p.name.isdigit()] if folder.is_dir() else []

    def _is_final(self, step: int) -> bool:
        try:
            manifest = json.loads((self.root / self.KIND / self._name(step) / MANIFEST).read_text())
        except (OSError, ValueError):
            return True  # not ours to judge: `latest` sets torn ones aside
        return bool(manifest["about"].get("final"))


def _seal(directory: Path, kind: str, key: str, about: Mapping[str, Any]) -> None:
    files = {}
    for path in sorted(p for p in directory.rglob("*") if p.is_file()):
        with path.open("rb") as handle:
            checksum = hashlib.file_digest(handle, "sha256").hexdigest()
            os.fsync(handle.fileno())
        files[path.relative_to(directory).as_posix()] = {"bytes": path.stat().st_size, "sha256": checksum}
    manifest = {"kind": kind, "key": key, "created": time.time(), "files": files, "about": dict(about)}
    with (directory / MANIFEST).open("w") as handle:
        json.dump(manifest, handle, indent=1)
        handle.flush()
        os.fsync(handle.fileno())


def _verify(path: Path, kind: str, key: str) -> tuple[str | None, dict[str, Any]]:
    """What is wrong with the entry at `path` (None: nothing), and what its manifest says about it."""
    try:
        manifest = json.loads((path / MANIFEST).read_text())
        if (manifest["kind"], manifest["key"]) != (kind, key):
            return f"its manifest is that of {manifest['kind']}/{manifest['key']}", {}
        for name, expected in manifest["files"].items():
            with (path / name).open("rb") as handle:
                if os.fstat(handle.fileno()).st_size != expected["bytes"]:
                    return f"{name} has not the {expected['bytes']} bytes of the manifest", {}
                if hashlib.file_digest(handle, "sha256").hexdigest() != expected["sha256"]:
                    return f"the content of {name} is not that of the manifest", {}
        return None, manifest["about"]
    except FileNotFoundError as error:
        return f"{Path(str(error.filename)).name} is missing", {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"its manifest cannot be read ({type(error).__name__}: {error})", {}


def _sync(directory: Path) -> None:
    """Make a rename in `directory` survive a power cut."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

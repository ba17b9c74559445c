"""An entry's manifest: what is in it, what it stands for and where it was made, to believe it by or not."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coldtune.store.local_files import Files, Marks
from coldtune.store.provenance import made

MANIFEST = "manifest.json"

# What says that an entry is damaged. Any other error (too many open files, say) says nothing about it.
_DAMAGE = {errno.ENOENT, errno.EISDIR, errno.ENOTDIR, errno.EIO, errno.ESTALE}


def seal(directory: Path, kind: str, key: str, about: Mapping[str, Any]) -> dict[str, Any]:
    """Write the manifest of what is in `directory`, and flush everything to the disk."""
    files = {}
    for path in sorted(p for p in directory.rglob("*") if p.is_file()):
        with path.open("rb") as handle:
            checksum = hashlib.file_digest(handle, "sha256").hexdigest()
            os.fsync(handle.fileno())
        files[path.relative_to(directory).as_posix()] = {"bytes": path.stat().st_size, "sha256": checksum}
    manifest = {
        "kind": kind,
        "key": key,
        "created": time.time(),
        "files": files,
        "about": dict(about),
        "made": made(),
    }
    text = json.dumps(manifest, indent=1)
    with (directory / MANIFEST).open("w") as handle:
        handle.write(text)
        handle.flush()
        os.fsync(handle.fileno())
    return dict(json.loads(text))


def read_manifest(files: Files, name: str) -> dict[str, Any]:
    """The manifest of the entry at `name`; ValueError where it is not one, OSError where it cannot be read."""
    with files.open(f"{name}/{MANIFEST}") as handle:
        manifest = json.loads(handle.read())
    expected = {"kind": str, "key": str, "created": int | float, "files": dict, "about": dict}
    wrong = [key for key, kind in expected.items() if not (isinstance(manifest, dict) and _is(manifest.get(key), kind))]
    if wrong:
        raise ValueError(f"no {', '.join(wrong)} in it")
    return dict(manifest)


def verify(files: Files, kind: str, key: str, marks: Marks, fresh: bool = False) -> tuple[str | None, dict[str, Any]]:
    """Read and hash the whole entry: what is wrong with it (None: nothing), and its manifest.

    fresh: read it from where it lies, even where there is a local copy. PermissionError and such are raised: they are
    no reason to do the work again.
    """
    name = f"{kind}/{key}"
    try:
        manifest = read_manifest(files, name)
        if (manifest["kind"], manifest["key"]) != (kind, key):
            return f"its manifest is that of {manifest['kind']}/{manifest['key']}", {}
        problem = outline(manifest, marks) or _contents(files, name, manifest, fresh)
        return problem, {} if problem else manifest
    except (ValueError, KeyError, TypeError) as error:
        return f"its manifest cannot be read ({type(error).__name__}: {error})", {}
    except OSError as error:
        if error.errno not in _DAMAGE:
            raise
        missing = isinstance(error, FileNotFoundError)
        return f"{Path(str(error.filename)).name} " + ("is missing" if missing else f"cannot be read ({error})"), {}


def outline(manifest: Mapping[str, Any], marks: Marks) -> str | None:
    """What is wrong with the names and sizes of an entry's files, which costs no reading.

    Hidden files that the manifest does not name are the file system's or a desktop's own (`.nfs0000...`, `.DS_Store`).
    """
    for name, expected in manifest["files"].items():
        if name not in marks:
            return f"{name} is missing"
        if marks[name][0] != expected["bytes"]:
            return f"{name} has not the {expected['bytes']} bytes of the manifest"
    extra = sorted(set(marks) - {MANIFEST, *manifest["files"]})
    if extra := [name for name in extra if not name.rpartition("/")[2].startswith(".")]:
        return f"{extra[0]} is not in its manifest"
    return None


def _contents(files: Files, name: str, manifest: Mapping[str, Any], fresh: bool) -> str | None:
    opened = files.stream if fresh else files.open
    for file, expected in manifest["files"].items():
        with opened(f"{name}/{file}") as handle:
            if hashlib.file_digest(handle, "sha256").hexdigest() != expected["sha256"]:  # type: ignore[arg-type]
                return f"the content of {file} is not that of the manifest"
    return None


def _is(value: object, kind: Any) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)

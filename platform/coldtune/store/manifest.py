"""An entry's manifest: its files with their checksums, its meaning, and where it was made."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from coldtune.readback import LIMIT, check_model, parse_json, unreadable
from coldtune.store.files import FileStats, StoreFiles
from coldtune.store.provenance import made

MANIFEST = "manifest.json"

# Errors that mean a damaged entry. Any other error, such as too many open files, says nothing about the entry.
_DAMAGE = {errno.ENOENT, errno.EISDIR, errno.ENOTDIR, errno.EIO, errno.ESTALE, errno.ELOOP}


class _FileRecord(BaseModel):
    """The manifest's record of a file."""

    bytes: int = Field(ge=0, strict=True)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class _About(BaseModel):
    """The results of an entry that every kind has. Each kind adds its own."""

    model_config = ConfigDict(extra="allow", strict=True)

    seconds: float = Field(allow_inf_nan=False)  # below zero if the clock was set back meanwhile


class _Manifest(BaseModel):
    """The form of a manifest."""

    kind: str
    key: str
    created: float = Field(ge=0, allow_inf_nan=False, strict=True)
    files: dict[str, _FileRecord]
    about: _About
    made: dict[str, Any] = Field(default_factory=dict)


def seal(directory: Path, kind: str, key: str, about: Mapping[str, Any]) -> dict[str, Any]:
    """Write the manifest of the files in `directory`, flush everything to the disk and return the manifest."""
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
    with (directory / MANIFEST).open("w", encoding="utf-8") as handle:
        handle.write(text)
        handle.flush()
        os.fsync(handle.fileno())
    return dict(json.loads(text))


def read_manifest(files: StoreFiles, name: str) -> dict[str, Any]:
    """Read the manifest of the entry `name`.

    Raises:
        ValueError: If the file is not a manifest. The message names it.
        OSError: If it cannot be read.
    """
    with files.open(f"{name}/{MANIFEST}") as handle:
        content = handle.read(LIMIT + 1)
    if len(content) > LIMIT:
        raise unreadable(MANIFEST, f"is larger than {LIMIT:,} bytes")
    tree = parse_json(content, MANIFEST)
    check_model(tree, _Manifest, MANIFEST)
    return dict(tree)


def verify(
    files: StoreFiles, kind: str, key: str, stats: FileStats, fresh: bool = False
) -> tuple[str | None, dict[str, Any]]:
    """Read a whole entry and compare it with its manifest.

    Args:
        stats: The entry's files, as `StoreFiles.tree` returned them.
        fresh: Read the originals, even if there are local copies.

    Returns:
        The problem with the entry, or None, and its manifest (empty if there is a problem).

    Raises:
        OSError: If a file cannot be read for a reason that does not mean damage, such as missing permission. Such an
            entry must not be rebuilt.
    """
    name = f"{kind}/{key}"
    try:
        manifest = read_manifest(files, name)
        if (manifest["kind"], manifest["key"]) != (kind, key):
            return f"its manifest is that of {manifest['kind']}/{manifest['key']}", {}
        problem = check_outline(manifest, stats) or _check_contents(files, name, manifest, fresh)
        return problem, {} if problem else manifest
    except ValueError as error:
        return f"its manifest cannot be read ({error})", {}
    except OSError as error:
        if error.errno not in _DAMAGE:
            raise
        missing = isinstance(error, FileNotFoundError)
        if error.errno == errno.ELOOP:
            return f"{Path(str(error.filename)).name} is a link or no regular file", {}
        return f"{Path(str(error.filename)).name} " + ("is missing" if missing else f"cannot be read ({error})"), {}


def check_outline(manifest: Mapping[str, Any], stats: FileStats) -> str | None:
    """Compare names and sizes of an entry's files with its manifest. Return the problem, or None. No file is read.

    Hidden files that the manifest does not name are allowed. File systems and desktops create them (`.nfs0000...`,
    `.DS_Store`).
    """
    for name, expected in manifest["files"].items():
        if name not in stats:
            return f"{name} is missing"
        if stats[name][0] != expected["bytes"]:
            return f"{name} has not the {expected['bytes']} bytes of the manifest"
    extra = sorted(set(stats) - {MANIFEST, *manifest["files"]})
    if extra := [name for name in extra if not name.rpartition("/")[2].startswith(".")]:
        return f"{extra[0]} is not in its manifest"
    return None


def _check_contents(files: StoreFiles, name: str, manifest: Mapping[str, Any], fresh: bool) -> str | None:
    open_file = files.stream if fresh else files.open
    for file, expected in manifest["files"].items():
        with open_file(f"{name}/{file}") as handle:
            if hashlib.file_digest(handle, "sha256").hexdigest() != expected["sha256"]:  # type: ignore[arg-type]
                return f"the content of {file} is not that of the manifest"
    return None

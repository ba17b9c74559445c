"""Downloads of published files, checked against their published checksums and never visible half-written."""

from __future__ import annotations

import hashlib
import http.client
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from coldtune.data.progress import Bars
from coldtune.files import lock_file, open_replacement

_TIMEOUT_SECONDS = 30.0
_CHUNK_BYTES = 1 << 18
_MOST_BYTES = 1 << 30  # of a published file. A server could send without an end


@dataclass(frozen=True)
class Remote:
    """A published file.

    Attributes:
        addresses: Its URLs, in order of preference.
        algorithm: The hashlib algorithm of the checksum.
        checksum: In hexadecimal digits.
    """

    name: str
    addresses: tuple[str, ...]
    algorithm: str
    checksum: str


def fetch(remote: Remote, folder: Path, bars: Bars) -> Path:
    """Return the path of a published file in `folder`, and download it if it is missing or has another checksum.

    The addresses are tried in turn. Several processes may call this at once: one of them downloads, the others wait.

    Raises:
        ValueError: If no address works. The message has the answer of each address.
    """
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / remote.name
    with lock_file(folder / f".{remote.name}.lock"):
        if target.is_file() and _checksum(target, remote.algorithm) == remote.checksum:
            return target
        failures = []
        for address in remote.addresses:
            try:
                with open_replacement(target, durable=True) as file:
                    _stream(address, file, remote, bars)
            except (OSError, http.client.HTTPException, ValueError) as error:
                failures.append(f"{address}: {error}")
            else:
                return target
    raise ValueError(f"{remote.name} could not be downloaded ({'; '.join(failures)})")


def _stream(address: str, file: BinaryIO, remote: Remote, bars: Bars) -> None:
    """Download `address` into `file`. Raises ValueError if its checksum is not the published one."""
    request = urllib.request.Request(address, headers={"User-Agent": "coldtune"})
    digest = hashlib.new(remote.algorithm, usedforsecurity=False)
    with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as response:
        length = response.headers.get("Content-Length")
        advance = bars.start(f"download {remote.name}", int(length) / 1e6 if length else None, "MB")
        while chunk := response.read(_CHUNK_BYTES):
            digest.update(chunk)
            file.write(chunk)
            if file.tell() > _MOST_BYTES:
                raise ValueError(f"it has more than {_MOST_BYTES:,} bytes")
            advance(len(chunk) / 1e6)
    if digest.hexdigest() != remote.checksum:
        raise ValueError(f"{remote.algorithm} is {digest.hexdigest()}, published is {remote.checksum}")


def _checksum(path: Path, algorithm: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()

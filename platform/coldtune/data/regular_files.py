"""Reading of files that others made: only regular files, and never more bytes than a caller allows."""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from pathlib import Path
from typing import BinaryIO

from coldtune.files import IrregularFileError, open_for_reading

_CHUNK_BYTES = 1 << 20


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading. A pipe or a device could otherwise be read for ever.

    Raises:
        ValueError: If the file is missing, unreadable or not a regular file. The message names it.
    """
    try:
        return open_for_reading(path)
    except IrregularFileError as error:
        raise ValueError(str(error)) from error
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from error


def read_file(path: Path, at_most: int) -> bytes:
    """Return the content of a regular file. Raises ValueError if it has more than `at_most` bytes or is unreadable."""
    with open_regular(path) as file:
        check_size(str(path), os.fstat(file.fileno()).st_size, at_most)
        return read_stream(file, str(path), at_most)


def read_gzip(path: Path, at_most: int) -> bytes:
    """Return the unpacked content of a .gz file. Raises ValueError if that is damaged or larger than `at_most`."""
    with open_regular(path) as file, gzip.open(file) as unpacked:
        try:
            return read_stream(unpacked, str(path), at_most)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{path} is damaged: {error}") from error


def read_stream(file: BinaryIO | gzip.GzipFile, where: str, at_most: int) -> bytes:
    """Return all bytes of an open file. Raises ValueError as soon as there are more than `at_most`."""
    parts, size = [], 0
    while part := file.read(_CHUNK_BYTES):
        size += len(part)
        if size > at_most:
            raise ValueError(f"{where} contains more than {at_most:,} bytes, which is the most that is read")
        parts.append(part)
    return b"".join(parts)


def check_size(where: str, size: int, at_most: int) -> None:
    """Raise ValueError if `size`, the bytes that a file has or promises, is more than `at_most`."""
    if size > at_most:
        raise ValueError(f"{where} contains {size:,} bytes, but at most {at_most:,} are read")


def check_memory(where: str, size: int) -> None:
    """Raise ValueError if `size` bytes are more than half of this machine's memory."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if size > memory // 2:
        raise ValueError(
            f"{where}: its images need {size / 1e9:,.1f} GB, but at most half of this machine's memory of "
            f"{memory / 1e9:,.1f} GB is used"
        )


def hash_file(path: Path) -> str:
    """Return the SHA-256 (hex) of a regular file. Raises ValueError if it cannot be read."""
    with open_regular(path) as file:
        try:
            digest = hashlib.sha256()
            while part := file.read(_CHUNK_BYTES):
                digest.update(part)
            return digest.hexdigest()
        except OSError as error:
            raise ValueError(f"{path} cannot be read: {error.strerror or error}") from error

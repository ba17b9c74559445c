"""The place of a store as text that every process can open: a folder, or a URL of object storage."""

from __future__ import annotations

import hashlib
import os
import uuid
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from coldtune.addresses import keys_of, redact, without_password
from coldtune.environment import expand_path
from coldtune.errors import describe_obstacle, file_above
from coldtune.places import check_folder
from coldtune.store.files import StoreFiles
from coldtune.store.local_files import LocalFiles
from coldtune.waiting import within

_CHECK_S = 30.0  # the longest wait for an answer before anything is spent

_ALLOWED = (
    "allowed: a folder, or a URL that pyarrow.fs opens, such as s3://BUCKET/PREFIX (with ?region=..., or "
    "?scheme=http&endpoint_override=HOST:PORT for a server of your own) or gs://BUCKET/PREFIX"
)


@dataclass(frozen=True)
class StoreLocation:
    """The place of a store.

    Each process takes the credentials of object storage from its environment (for S3: AWS_ACCESS_KEY_ID and so on, a
    profile, or the machine's role), so that no file holds them. If the URL holds keys, they move to the environment of
    this process.

    Attributes:
        where: An absolute path, or a URL.
        copies: For a URL, the folder of local copies.
    """

    where: str
    copies: str = ""

    @classmethod
    def of(cls, place: StoreLocation | Path | str) -> StoreLocation:
        """Return the location that a path or URL names.

        Local copies of a URL go to COLDTUNE_STORE_CACHE, or to `~/.cache/coldtune` if that is not set.
        """
        if isinstance(place, StoreLocation):
            return place
        text = str(place)
        if text.startswith("file://"):
            text = urlsplit(text).path
        if "://" not in text:
            return cls(str(expand_path(text, "--store")))
        text = _without_keys(text)
        return cls(text, str(_copies_of(text, Path(os.path.expanduser("~/.cache/coldtune")))))

    @classmethod
    def in_home(cls, home: Path, place: str | None) -> StoreLocation:
        """Return the location that the value of `--store` names for a home.

        Args:
            place: The value of `--store`. None means `home/store`. Local copies of a URL go to COLDTUNE_STORE_CACHE, or
                to `home/store-copies` if that is not set.
        """
        location = cls.of(home / "store" if place is None else place)
        if not location.remote:
            return location
        return cls(location.where, str(_copies_of(location.where, home / "store-copies")))

    @property
    def remote(self) -> bool:
        """Whether this is object storage."""
        return "://" in self.where

    @property
    def shown(self) -> str:
        """The location for people: the path, or the URL without credentials and query."""
        if not self.remote:
            return self.where
        parts = urlsplit(self.where)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}".rstrip("/")

    @property
    def path(self) -> Path:
        """The folder of a store that is not remote."""
        assert not self.remote
        return Path(self.where)

    def files(self) -> StoreFiles:
        """Return access to the files at this location.

        Raises:
            ValueError: If pyarrow.fs cannot open the URL.
        """
        return _remote_files(self, os.getpid()) if self.remote else LocalFiles(self.path)

    def check(self, writable: bool = False) -> None:
        """Check that the store can be used: in object storage, write, list and remove a small object.

        Args:
            writable: Check a folder by writing, too. Otherwise a folder may be missing or read-only, which is enough to
                look for entries.

        Raises:
            ValueError: If any of these steps fails, or a file is where the folder must be. The message says why, as far
                as the server tells.
        """
        if not self.remote:
            if writable:
                check_folder(self.path, "--store")
            elif (file := file_above(self.path)) is not None:
                raise ValueError(f"--store {self.shown}: {describe_obstacle(file)}")
            return
        from pyarrow.lib import ArrowException

        from coldtune.store.bucket import Bucket

        self.files()
        filesystem, root = _open(self)
        bucket, name = Bucket(filesystem, root, patience_s=0.0), f".check/{uuid.uuid4().hex}"

        def use() -> None:
            bucket.put(name, b"")
            bucket.names(".check")
            bucket.delete(name)

        try:
            within(_CHECK_S, use)
        except TimeoutError:
            raise ValueError(f"--store {self.shown}: the server does not answer within {_CHECK_S:g} s") from None
        except (OSError, ArrowException) as error:
            raise ValueError(f"--store {self.shown}: cannot be used: {_reason(error)}") from None


def _without_keys(url: str) -> str:
    """Return a URL without credentials, after moving the keys of S3 to the environment, where pyarrow looks for them.

    Raises:
        ValueError: If the text is not a URL.
    """
    if (keys := keys_of(url)) is not None and url.startswith("s3://"):
        os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"] = keys
    bare = without_password(url)
    try:
        urlsplit(bare)
    except ValueError as error:
        raise ValueError(f"--store {redact(url)}: {error}; {_ALLOWED}") from None
    return bare


def _copies_of(url: str, default: Path) -> Path:
    root = os.environ.get("COLDTUNE_STORE_CACHE")
    return (Path(root).expanduser().absolute() if root else default) / hashlib.sha256(url.encode()).hexdigest()[:12]


@cache
def _remote_files(location: StoreLocation, pid: int) -> StoreFiles:
    """Open a location once in each process (`pid` is part of the cache's key), because opening costs connections."""
    from coldtune.store.bucket import Bucket
    from coldtune.store.download_cache import DownloadCache
    from coldtune.store.object_files import ObjectFiles

    return ObjectFiles(Bucket(*_open(location)), DownloadCache(Path(location.copies)), location.shown)


def _open(location: StoreLocation) -> tuple[Any, str]:
    """Return the pyarrow file system of a URL, and the path in it."""
    from pyarrow.fs import FileSystem
    from pyarrow.lib import ArrowException

    url = location.where
    if url.startswith("s3://") and "allow_delayed_open" not in url:
        separator = "&" if "?" in url else "?"
        url += f"{separator}allow_delayed_open=true"  # a small object then takes a single request instead of three
    try:
        filesystem, path = within(_CHECK_S, lambda: FileSystem.from_uri(url))
    except TimeoutError:
        raise ValueError(f"--store {location.shown}: does not answer within {_CHECK_S:g} s") from None
    except (ValueError, OSError, ArrowException) as error:
        raise ValueError(f"--store {location.shown}: {_reason(error)}; {_ALLOWED}") from None
    if not path.strip("/"):
        raise ValueError(f"--store {location.shown}: names no bucket; {_ALLOWED}")
    return filesystem, path


def _reason(error: Exception) -> str:
    """Return the first line of an error, preceded by an explanation if the error is known."""
    text = redact((str(error).strip() or type(error).__name__).splitlines()[0])
    for word, meaning in _MEANINGS.items():
        if word in text:
            return f"{meaning} ({text[:200]})"
    return text[:300]


_MEANINGS = {
    "NO_SUCH_BUCKET": "there is no such bucket; make it first",
    "NETWORK_CONNECTION": "the server cannot be reached",
    "ACCESS_DENIED": "these credentials may not write, list and delete there",
    "INVALID_ACCESS_KEY_ID": "the server does not know these credentials",
    "SIGNATURE_DOES_NOT_MATCH": "the server does not know these credentials",
}

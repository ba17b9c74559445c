"""Where a store lies, as text that every process can open: a folder, or a URL of object storage."""

from __future__ import annotations

import hashlib
import os
import uuid
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from coldtune.store.local_files import Files, LocalFiles

_ALLOWED = (
    "allowed: a folder, or a URL that pyarrow.fs opens, such as s3://BUCKET/PREFIX (with ?region=..., or "
    "?scheme=http&endpoint_override=HOST:PORT for a server of your own) or gs://BUCKET/PREFIX"
)


@dataclass(frozen=True)
class StoreAt:
    """A store's place: `where` is an absolute path or a URL; copies: the folder of local copies, for a URL.

    Credentials of object storage come from the environment of each process (for S3: AWS_ACCESS_KEY_ID and so on, a
    profile, or the machine's role), so that no file holds them.
    """

    where: str
    copies: str = ""

    @classmethod
    def of(cls, place: StoreAt | Path | str) -> StoreAt:
        """From a path, or a URL whose copies go to COLDTUNE_STORE_CACHE, otherwise `~/.cache/coldtune`."""
        if isinstance(place, StoreAt):
            return place
        text = str(place)
        if text.startswith("file://"):
            text = urlsplit(text).path
        if "://" not in text:
            return cls(str(Path(text).expanduser().absolute()))
        return cls(text, str(_copies_of(text, Path.home() / ".cache" / "coldtune")))

    @classmethod
    def in_home(cls, home: Path, place: str | None) -> StoreAt:
        """The store that `--store` means (None: `home/store`); copies: COLDTUNE_STORE_CACHE or `home/store-copies`."""
        made = cls.of(home / "store" if place is None else place)
        return cls(made.where, str(_copies_of(made.where, home / "store-copies"))) if made.remote else made

    @property
    def remote(self) -> bool:
        """Whether it is object storage."""
        return "://" in self.where

    @property
    def shown(self) -> str:
        """For people: the path, or the URL without credentials and query."""
        if not self.remote:
            return self.where
        parts = urlsplit(self.where)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}".rstrip("/")

    @property
    def path(self) -> Path:
        """The folder of a store that is not remote."""
        assert not self.remote
        return Path(self.where)

    def files(self) -> Files:
        """The files there; ValueError for a URL that means nothing."""
        return _remote(self, os.getpid()) if self.remote else LocalFiles(self.path)

    def check(self) -> None:
        """Write, list and remove a small object, where it is object storage; ValueError where that cannot be done."""
        if not self.remote:
            return
        from coldtune.store.bucket import Bucket

        self.files()
        filesystem, root = _opened(self)
        bucket, name = Bucket(filesystem, root, patience_s=0.0), f".check/{uuid.uuid4().hex}"
        try:
            bucket.put(name, b"")
            bucket.names(".check")
            bucket.delete(name)
        except OSError as error:
            raise ValueError(f"--store {self.shown}: cannot be used: {_reason(error)}") from None


def _copies_of(url: str, default: Path) -> Path:
    root = os.environ.get("COLDTUNE_STORE_CACHE")
    return (Path(root).expanduser().absolute() if root else default) / hashlib.sha256(url.encode()).hexdigest()[:12]


@cache
def _remote(at: StoreAt, pid: int) -> Files:
    """One for each process: opening costs connections."""
    from coldtune.store.bucket import Bucket
    from coldtune.store.download_cache import Copies
    from coldtune.store.object_files import ObjectFiles

    return ObjectFiles(Bucket(*_opened(at)), Copies(Path(at.copies)), at.shown)


def _opened(at: StoreAt) -> tuple[Any, str]:
    """The file system and the path in it that the URL means."""
    from pyarrow.fs import FileSystem

    url = at.where
    if url.startswith("s3://") and "allow_delayed_open" not in url:
        url += (
            "&" if "?" in url else "?"
        ) + "allow_delayed_open=true"  # a small object by one request instead of three
    try:
        filesystem, path = FileSystem.from_uri(url)
    except (ValueError, OSError) as error:  # ArrowInvalid is a ValueError
        raise ValueError(f"--store {at.shown}: {_reason(error)}; {_ALLOWED}") from None
    if not path.strip("/"):
        raise ValueError(f"--store {at.shown}: names no bucket; {_ALLOWED}")
    return filesystem, path


def _reason(error: Exception) -> str:
    """The message's first line, shortened to what a person can act on."""
    text = str(error).splitlines()[0]
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

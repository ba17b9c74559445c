"""Leases: if several processes want the same work, one does it and the others wait.

    <name>.first                 who holds the lease: a token, the host, the process, how long it may be silent
    <name>.after-<token>         who took the lease over from the holder of that token
    <name>.beat-<token>          a count that the holder of that token raises while it lives

The links form a chain that starts at `.first`, and the last link names the holder. Each link is created exclusively, so
only one process can take over from a holder. A waiting process judges whether the holder lives by whether its count
changes, measured with the waiting process's own clock. Clocks of different hosts are never compared. A holder on the
same machine whose process no longer exists is replaced at once.

A lease saves work, but correctness does not depend on it. A holder that is stopped for longer than its lease and then
wakes up publishes the same work as the process that took over, and the first to publish wins.
"""

from __future__ import annotations

import _thread
import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from coldtune.processes import gone, is_process, this_process
from coldtune.retrying import pauses
from coldtune.store.files import StoreFiles

_BEATS_PER_LEASE = 5  # so a lease runs out only if this many signs of life in a row are late
_LONGEST_LEASE_S = 86400.0  # a link that claims more is damaged
_PAUSES_S = (0.02, 1.0)  # between two looks at another's lease: the first, the longest


@contextmanager
def lease(
    files: StoreFiles, name: str, seconds: float, done: Callable[[], bool], on_wait: Callable[[str], None]
) -> Iterator[bool]:
    """Hold the lease `name` while the body runs.

    Args:
        seconds: How long other processes wait for a sign of life before they take over. While the body runs, a thread
            gives a sign five times as often.
        done: Asked while waiting. Once it returns True, waiting ends without the lease.
        on_wait: Called with a sentence for each holder that has to be waited for, and if the lease was lost while the
            body ran.

    Yields:
        True if the lease is held, False if `done()` became true first.
    """
    claim = _LeaseClaim(files, name, seconds)
    if not claim.acquire(done, on_wait):
        yield False
        return
    stop = threading.Event()
    # Starting and joining a `threading.Thread` waits until the thread has run, on a busy machine for 10 ms each time.
    # Most work is done before the first beat.
    _thread.start_new_thread(claim.beat, (stop,))
    try:
        yield True
    finally:
        stop.set()
        with claim.beating:  # a beat that is being written would come back after the release
            pass
        if not claim.release():
            on_wait(f"the lease on {name} ran out while its work was going on; another process may have done it too")


class _LeaseClaim:
    """The claim of one process to a lease."""

    def __init__(self, files: StoreFiles, name: str, seconds: float) -> None:
        self.files, self.name = files, name
        self.token, self.seconds = uuid.uuid4().hex, seconds
        self.beating = threading.Lock()  # held while a sign of life is written
        self.me: dict[str, Any] = {**this_process(), "token": self.token, "started": time.time(), "seconds": seconds}

    def acquire(self, done: Callable[[], bool], on_wait: Callable[[str], None]) -> bool:
        """Wait until the lease is held (True) or `done()` is true (False)."""
        seen: tuple[str, bytes | None] | None = None
        since, announced, waits = time.monotonic(), "", pauses(*_PAUSES_S)
        while not done():
            link, holder = self._next_link()
            sign = (link, self._read(f"beat-{holder['token']}") if holder else None)
            if sign != seen:
                seen, since = sign, time.monotonic()
            if holder is None or gone(holder) or time.monotonic() - since > float(holder["seconds"]):
                if self._take(link):
                    return True
                continue
            if announced != holder["token"]:
                announced = holder["token"]
                on_wait(f"{self.name} is being made by process {holder['pid']} on {holder['host']}; waiting for it")
            time.sleep(min(next(waits), max(float(holder["seconds"]) / _BEATS_PER_LEASE, _PAUSES_S[0])))
        return False

    def beat(self, stop: threading.Event) -> None:
        """Give signs of life until `stop` is set. A sign that cannot be written is left out."""
        count = 0
        while not stop.wait(self.seconds / _BEATS_PER_LEASE):
            count += 1
            with self.beating, suppress(OSError):
                if not stop.is_set():
                    self.files.write(self._file(f"beat-{self.token}"), str(count).encode())

    def release(self) -> bool:
        """Remove the whole chain, its first link first.

        Returns:
            False, without removing the chain, if another process took the lease over.
        """
        links, holders = self._chain()
        held = bool(holders) and holders[-1]["token"] == self.token
        for link in links if held else []:
            self.files.remove(self._file(link))
        for token in {self.token, *(holder["token"] for holder in holders if held)}:
            self.files.remove(self._file(f"beat-{token}"))
        return held

    def _take(self, link: str) -> bool:
        if not self.files.create(self._file(link), json.dumps(self.me).encode()):
            return False
        _, holder = self._next_link()
        if holder is not None and holder["token"] == self.token:
            return True
        self.files.remove(self._file(link))  # the chain that it continued was removed in the meantime
        return False

    def _next_link(self) -> tuple[str, Mapping[str, Any] | None]:
        """Return the link by which to take the lease, and its present holder (None if the lease is free)."""
        _, holders = self._chain()
        return (f"after-{holders[-1]['token']}", holders[-1]) if holders else ("first", None)

    def _chain(self) -> tuple[list[str], list[dict[str, Any]]]:
        links, holders, link = [], [], "first"
        while (content := self._read(link)) is not None:
            links.append(link)
            holders.append(_parse_link(content, self.seconds))
            link = f"after-{holders[-1]['token']}"
            if link in links:
                break
        return links, holders

    def _file(self, part: str) -> str:
        return f"{self.name}.{part}"

    def _read(self, part: str) -> bytes | None:
        try:
            with self.files.open(self._file(part)) as file:
                return file.read()
        except FileNotFoundError:
            return None


def _parse_link(content: bytes, seconds: float) -> dict[str, Any]:
    """Return a link's content. A link whose writer was killed before it wrote the content gets an empty token.

    So does a link that a power cut or an editor has damaged.
    """
    unknown = {"token": "", "host": "an unknown host", "pid": "?", "seconds": seconds}
    try:
        link = {**unknown, **json.loads(content)}
        silent = float(link["seconds"])
    except (ValueError, TypeError, OverflowError, RecursionError):
        return unknown
    named = isinstance(link["token"], str) and link["token"].isalnum()
    return link if named and is_process(link) and 0 < silent < _LONGEST_LEASE_S else unknown

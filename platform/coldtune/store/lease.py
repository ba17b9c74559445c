"""Leases: of several processes that want the same work, one does it and the others wait.

    <name>.first                 who holds it: a token, the host, the process, for how long after its last sign of life
    <name>.after-<token>         who took it over from the holder of that token
    <name>.beat-<token>          a count that the holder of that token raises while it lives

The holder is the end of the chain that starts at `.first`. Each link is created exclusively, so one process alone can
take over from a holder. Whether a holder lives is judged by whether its count changes while one watches, by the
watcher's own clock: clocks of different hosts are never compared. A holder on the same machine whose process is gone
is taken over from at once.

A lease saves work; nothing depends on it for being right. A holder that was stopped for longer than its lease, and
wakes up, publishes the same work as whoever took over from it, and the first to publish wins.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from coldtune.processes import gone, this_process
from coldtune.retrying import pauses
from coldtune.store.local_files import Files

_BEATS = 5  # in the time of a lease: so many may be late before it runs out
_PAUSE_S = (0.02, 1.0)  # between two looks at another's lease: the first, the longest


@contextmanager
def lease(
    files: Files, name: str, seconds: float, done: Callable[[], bool], waiting: Callable[[str], None]
) -> Iterator[bool]:
    """Hold the lease `name` for the body: True once it is held, False where `done()` came true while waiting for it.

    seconds: how long others wait for a sign of life before they take over; while the body runs, a thread gives one
    five times as often. `waiting` gets one sentence for each holder that has to be waited for, and one if the lease
    was lost while the body ran.
    """
    mine = _Lease(files, name, seconds)
    if not mine.acquire(done, waiting):
        yield False
        return
    stop = threading.Event()
    beating = threading.Thread(target=mine.beat, args=(stop,), daemon=True, name=f"lease {name}")
    beating.start()
    try:
        yield True
    finally:
        stop.set()
        beating.join()
        if not mine.release():
            waiting(f"the lease on {name} ran out while its work was going on; another process may have done it too")


class _Lease:
    """One process's wish for a lease."""

    def __init__(self, files: Files, name: str, seconds: float) -> None:
        self.files, self.name = files, name
        self.token, self.seconds = uuid.uuid4().hex, seconds
        self.me: dict[str, Any] = {**this_process(), "token": self.token, "started": time.time(), "seconds": seconds}

    def acquire(self, done: Callable[[], bool], waiting: Callable[[str], None]) -> bool:
        """Wait until it is held (True) or `done()` (False)."""
        seen: tuple[str, bytes | None] | None = None
        since, told, waits = time.monotonic(), "", pauses(*_PAUSE_S)
        while not done():
            link, holder = self._end()
            sign = (link, self._read(f"beat-{holder['token']}") if holder else None)
            if sign != seen:
                seen, since = sign, time.monotonic()
            if holder is None or gone(holder) or time.monotonic() - since > float(holder["seconds"]):
                if self._take(link):
                    return True
                continue
            if told != holder["token"]:
                told = holder["token"]
                waiting(f"{self.name} is being made by process {holder['pid']} on {holder['host']}; waiting for it")
            time.sleep(min(next(waits), max(float(holder["seconds"]) / _BEATS, _PAUSE_S[0])))
        return False

    def beat(self, stop: threading.Event) -> None:
        """Give signs of life until told to stop; one that fails is only late."""
        count = 0
        while not stop.wait(self.seconds / _BEATS):
            count += 1
            with suppress(OSError):
                self.files.write(self._file(f"beat-{self.token}"), str(count).encode())

    def release(self) -> bool:
        """Remove the whole chain, its start first, where it still ends here; False where another took over."""
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
        _, holder = self._end()
        if holder is not None and holder["token"] == self.token:
            return True
        self.files.remove(self._file(link))  # the chain that it continued was removed in the meantime
        return False

    def _end(self) -> tuple[str, Mapping[str, Any] | None]:
        """The link by which one would take over, and the holder to take over from (None: nobody holds it)."""
        _, holders = self._chain()
        return (f"after-{holders[-1]['token']}", holders[-1]) if holders else ("first", None)

    def _chain(self) -> tuple[list[str], list[dict[str, Any]]]:
        links, holders, link = [], [], "first"
        while (content := self._read(link)) is not None:
            links.append(link)
            holders.append(_parsed(content, self.seconds))
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


def _parsed(content: bytes, seconds: float) -> dict[str, Any]:
    """A link as its holder wrote it; one cut off (its writer was killed between creating and writing) has no token."""
    unknown = {"token": "", "host": "an unknown host", "pid": "?", "seconds": seconds}
    try:
        return {**unknown, **json.loads(content)}
    except (ValueError, TypeError):
        return unknown

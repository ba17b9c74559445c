"""Exponential backoff: how long to wait between repeated attempts."""

from __future__ import annotations

import random
from collections.abc import Iterator


def pauses(first_s: float, longest_s: float, jitter: float = 0.0) -> Iterator[float]:
    """Yield without end the seconds to sleep between attempts, each twice as long as the last, up to `longest_s`.

        waits = pauses(0.5, 10.0)
        while not attempt():
            time.sleep(next(waits))

    Args:
        first_s: The first pause. Smaller values react faster to a short failure and ask more often.
        longest_s: The limit of a pause, and so the longest time that a recovery may stay unnoticed.
        jitter: Between 0 and 1. A pause is drawn uniformly from 1 - `jitter` to 1 + `jitter` times its length, so that
            processes that failed at the same moment do not all ask again at the same moment. With jitter, a single
            pause may exceed `longest_s` by that share.

    Raises:
        ValueError: If the lengths are not 0 < `first_s` <= `longest_s`, or `jitter` is outside 0..1.
    """
    if not 0 < first_s <= longest_s or not 0 <= jitter <= 1:
        raise ValueError(
            f"first_s = {first_s}, longest_s = {longest_s}, jitter = {jitter}: allowed are 0 < first_s <= longest_s "
            "and a jitter from 0 to 1"
        )
    return _doubling(first_s, longest_s, jitter)


def _doubling(pause: float, longest_s: float, jitter: float) -> Iterator[float]:
    while True:
        yield pause * random.uniform(1 - jitter, 1 + jitter)
        pause = min(2 * pause, longest_s)

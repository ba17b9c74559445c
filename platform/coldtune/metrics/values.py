"""Values of metrics, and the rule that values under different protocols are never compared."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from coldtune.metrics.protocol import Protocol
from coldtune.metrics.registry import DISTANCES, label


def difference(a: Protocol, b: Protocol) -> dict[str, tuple[Any, Any]]:
    """Return the parts in which two protocols differ, with both values. Equal protocols: an empty dict."""
    return {
        name: (getattr(a, name), getattr(b, name))
        for name in Protocol.model_fields
        if getattr(a, name) != getattr(b, name)
    }


def same(a: Protocol, b: Protocol) -> bool:
    """Return True if values under `a` and values under `b` may be compared."""
    return a.key == b.key


def check_same(protocols: Iterable[Protocol]) -> None:
    """Raise ValueError, which names every part that differs, unless all protocols are the same.

    Call this before values are compared, ranked, averaged or put into the same column of a table.
    """
    items = list(protocols)
    for other in items[1:]:
        if parts := difference(items[0], other):
            listed = ", ".join(f"{name} ({first!r} and {second!r})" for name, (first, second) in parts.items())
            raise ValueError(f"values of different protocols cannot be compared; they differ in {listed}")


def check_objective(protocol: Protocol, metric: str = "fid") -> None:
    """Raise ValueError if `metric` under `protocol` would mislead a search: FID with fewer than 4 d images.

    FID's bias falls as 1/N and grows with the model's spread. So with few images it can rank an over-smoothed model
    before a close sharper model. 4 d is a floor, not a guarantee (benchmarks/2026-11-23-small-n-ranking.md).

    Args:
        protocol: The protocol of the search.
        metric: The objective. A prefix such as "sampled/" is ignored.
    """
    name = metric.rpartition("/")[2]
    factor = DISTANCES[name].images_per_dim if name in DISTANCES else 0
    n, least = min(protocol.num_images, protocol.reference_images), factor * protocol.dim
    if n < least:
        few = f"protocol.num_images = {n}"
        if n < protocol.num_images:
            few = f"the {protocol.reference_split} split of {protocol.dataset!r} has {n} images to compare with"
        if protocol.reference == "other":
            few = f"protocol.reference = 'other': a half of the {protocol.split} split judges {n} images"
        raise ValueError(
            f"{few}: {label(name)} as an objective needs N >= {factor} d = {least} with {protocol.extractor!r} "
            f"(d = {protocol.dim}), because below that it can rank over-smoothed images first. Judge more images, or "
            f"take an extractor with d <= {n // factor}"
        )


@dataclass(frozen=True)
class Value:
    """A metric's value with everything that makes it comparable.

    Ordering and subtraction raise ValueError for values of other metrics or other protocols.

    Attributes:
        metric: The metric's name in the registry.
        value: The metric of the whole set of images.
        n: The number of images.
        protocol: The protocol under which the images were judged.
        low: The lower bound of the 95 % interval, or None if no interval is known.
        high: The upper bound.
    """

    metric: str
    value: float
    n: int
    protocol: Protocol
    low: float | None = None
    high: float | None = None

    def __lt__(self, other: Value) -> bool:
        self._check(other)
        return self.value < other.value

    def __gt__(self, other: Value) -> bool:
        self._check(other)
        return self.value > other.value

    def __sub__(self, other: Value) -> float:
        self._check(other)
        return self.value - other.value

    def _check(self, other: Value) -> None:
        if self.metric != other.metric:
            raise ValueError(f"{self.metric} cannot be compared with {other.metric}")
        check_same([self.protocol, other.protocol])

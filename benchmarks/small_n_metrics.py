"""The library's metrics for many subsets of one set of images, with what the subsets share computed once.

`coldtune.metrics.distances` sorts the reference's projections and sums its kernel anew on every call, nearly a second
for 10,000 images. Here both are done once for a reference, and the products of a set with the reference once for the
set. FID and FID-infinity are the library's functions; KID and MIND are the same sums in another order, equal to 1e-9
(tests/benchmarks/test_small_n_metrics.py, and `differences` on the experiment's own features).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from coldtune.metrics.distances import distances
from coldtune.metrics.fid_infinity import fid_infinity
from coldtune.metrics.frechet import frechet_distance
from coldtune.metrics.kid import kernel
from coldtune.metrics.mind import DIRECTIONS, unit_vectors
from coldtune.metrics.reference import Reference

METRICS = ("fid", "fid_infinity", "kid", "mind")
BLOCK = 2048


@dataclass(eq=False)
class Target:
    """Reference features (M, d), float64, and all that the metrics need of them."""

    features: Tensor
    seed: int = 0
    directions: int = DIRECTIONS
    _quantiles: dict[int, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.moments = Reference.of(self.features)
        self.units = unit_vectors(self.seed, self.directions, self.features.shape[1])
        self.within = within(self.features)
        self.projections = np.sort((self.units @ self.features.T).numpy(), axis=1)  # (K, M)
        self.square = float((self.projections**2).mean())

    def quantiles(self, n: int) -> np.ndarray:
        """(K, n): the mean of each direction's quantile function over [i/n, (i+1)/n]."""
        if n not in self._quantiles:
            self._quantiles[n] = bin_means(self.projections, n)
        return self._quantiles[n]


@dataclass(eq=False)
class Judged:
    """A set of images by its features (P, d), float64, of which subsets are judged."""

    features: Tensor
    target: Target

    def __post_init__(self) -> None:
        y = torch.split(self.target.features, BLOCK)
        sums = [sum(kernel(x, part).sum(1) for part in y) for x in torch.split(self.features, BLOCK)]
        self.cross = torch.cat([torch.as_tensor(part) for part in sums]) / len(self.target.features)
        self.projections = (self.target.units @ self.features.T).numpy()  # (K, P)

    def values(self, rows: Tensor) -> list[float]:
        """The METRICS of the images `rows`, in that order."""
        features, target = self.features[rows], self.target
        return [
            frechet_distance(target.moments, features),
            fid_infinity(features, target.moments, target.seed),
            self.kid(rows),
            self.mind(rows),
        ]

    def kid(self, rows: Tensor) -> float:
        """`coldtune.metrics.kid` of the images `rows`."""
        return within(self.features[rows]) + self.target.within - 2 * float(self.cross[rows].mean())

    def mind(self, rows: Tensor) -> float:
        """E (x - y)^2 = E x^2 + E y^2 - 2 E x y in the monotone coupling, where each x meets its bin's mean y."""
        x = np.sort(self.projections[:, rows.numpy()], axis=1)
        cross = np.einsum("kn,kn->", x, self.target.quantiles(len(rows))) / x.size
        return float(3 * self.features.shape[1] * ((x**2).mean() + self.target.square - 2 * cross))

    def kid_influences(self, rows: Tensor) -> Tensor:
        """`coldtune.metrics.kid_influences` of the images `rows`."""
        pairs = kernel(self.features[rows], self.features[rows])
        influences = 2 * ((pairs.sum(1) - pairs.diagonal()) / (len(rows) - 1) - self.cross[rows])
        return influences - influences.mean()


def within(features: Tensor) -> float:
    """Mean of the kernel over all pairs of two different vectors."""
    total = sum(float(kernel(x, features).sum()) for x in torch.split(features, BLOCK))
    own = float((((features**2).sum(1) / features.shape[1] + 1) ** 3).sum())
    return (total - own) / (len(features) * (len(features) - 1))


def bin_means(ordered: np.ndarray, n: int) -> np.ndarray:
    """(K, n): means of the step functions with the values ordered (K, M), each over 1/M, on n equal intervals."""
    k, m = ordered.shape
    sums = np.concatenate([np.zeros((k, 1)), ordered.cumsum(axis=1)], axis=1)
    whole, rest = np.divmod(np.arange(n + 1) * m, n)
    padded = np.concatenate([ordered, ordered[:, -1:]], axis=1)
    integrals = sums[:, whole] + padded[:, whole] * (rest / n)
    means: np.ndarray = np.diff(integrals, axis=1) * n / m
    return means


def differences(judged: Judged, rows: Tensor) -> dict[str, float]:
    """By how much the values above differ from the library's, relatively."""
    target = judged.target
    library = distances(judged.features[rows], target.features, target.moments, METRICS, target.seed)
    values = zip(METRICS, judged.values(rows), strict=True)
    return {name: abs(value - library[name]) / abs(library[name]) for name, value in values}

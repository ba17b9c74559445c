"""Models made of real features by hand, for small_n_ranking.py: one too smooth by construction against a noisy one.

The features of the pool's clean images are drawn towards their mean (spread lost: over-smoothed) or away from it (too
much of it: noisy), the latter by less, so that its FID is smaller by a given factor. The shrunk set is the worse one
for FID at any N but for the bias of a finite one: what a small N makes of it is FID's preference and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file
from small_n_images import Advance, Case, keep
from small_n_metrics import Judged, Target
from small_n_report import ImageSet, Pair
from small_n_values import halves, sizes, values_of
from torch import Tensor

SPREADS = (0.95, 0.9, 0.8, 0.6)  # of the features' standard deviation, what is left
FACTORS = (1.2, 2.0)  # FID of the shrunk set over that of the widened one


def constructed_pairs(
    case: Case, clean: Tensor, target: Target, folder: Path, repeats: int, advance: Advance
) -> list[Pair]:
    """Shrunk against widened at every spread and factor. clean: features of the pool's originals (P, d)."""
    case = replace(case, kind="constructed")
    pairs: list[Pair] = []
    for spread in SPREADS:
        a = judged(case, scaled(clean, spread), target, folder / f"{spread}.safetensors", repeats, spread)
        for factor in FACTORS:
            # FID of features scaled by s about their mean is (1 - s)^2 times the trace of their covariance.
            wide = 1 + (1 - spread) / factor**0.5
            b = judged(case, scaled(clean, wide), target, folder / f"{spread}-{factor}.safetensors", repeats, wide)
            pairs.append(Constructed(a, b, f"{case.dataset}, spread {spread}, FID {factor} times the other's"))
            advance(1)
    return pairs


class Constructed(Pair):
    """A pair of which b is the better one by construction."""

    @property
    def truth(self) -> int:
        return -1


def scaled(features: Tensor, spread: float) -> Tensor:
    mean = features.mean(0)
    return mean + spread * (features - mean)


def judged(case: Case, features: Tensor, target: Target, path: Path, repeats: int, spread: float) -> ImageSet:
    """The set's values, kept in `path`. spread: what its features' standard deviation is multiplied by."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ratios = sizes(features.shape[1], case.pool)
    if not path.exists():
        one = Judged(features, target)
        found = {"pool": torch.tensor(one.values(torch.arange(len(features))), dtype=torch.float64)}
        for ratio, n in ratios:
            found[str(ratio)] = values_of(one, rows_of(case, n, repeats))
        keep(path, found)
    found = load_file(path)
    values = {ratio: found[str(ratio)] for ratio, _ in ratios}
    return ImageSet(case, 0, "constructed", found["pool"], values, spread**2, float("nan"))


def rows_of(case: Case, n: int, repeats: int) -> Sequence[tuple[Tensor, Tensor]]:
    return [halves(case, n, repeat) for repeat in range(repeats)]

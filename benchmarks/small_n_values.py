"""The values of small_n_ranking.py: each set of images judged on all of the pool and on random subsets of it.

One safetensors file for each case. With S sets, P pairs, R repeats of two disjoint subsets (halves) and M metrics:

    pool (S, M); spread (S + 1,) and detail (S + 1,), the last that of the clean images
    n<N> (S, R, 2, M)             the values on the subsets: the same image numbers for all sets
    whole (P, 2, 3)               low, value, high of the paired difference in FID and KID on the pool
    interval<N> (P, C, 2, 2, 3)   the same on the subsets, by half and metric, for the first C repeats
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from small_n_images import Advance, Case, images, keep
from small_n_metrics import Judged, Target
from torch import Tensor

from coldtune.data import Dataset
from coldtune.diffusion import draws
from coldtune.metrics import build_extractor
from coldtune.metrics.extractors import extract_features
from coldtune.metrics.frechet import frechet_distance, frechet_influences
from coldtune.metrics.intervals import jackknife_interval

SIZES = (0.5, 1.0, 2.0, 4.0, 10.0)  # N / d
WITH_INTERVALS = (4.0, 10.0)
COVERED = 25


def sizes(dim: int, pool: int) -> list[tuple[float, int]]:
    """(N / d, N) as far as the pool holds two disjoint subsets of N."""
    return [(ratio, int(ratio * dim)) for ratio in SIZES if 2 * int(ratio * dim) <= pool]


def values_file(folder: Path) -> Path:
    return folder / "values.safetensors"


def judge_case(case: Case, clean: Tensor, target: Target, folder: Path, repeats: int, advance: Advance) -> None:
    """Write the values of `case`, where they are not there yet. clean: the pool's originals, uint8."""
    path = values_file(folder)
    if path.exists() and len(load_file(path)["n" + str(target.features.shape[1])][0]) == repeats:
        advance(len(case.sets))
        return
    made = [images(folder, *which) for which in case.sets]
    extractor = build_extractor(case.extractor)
    sets = [Judged(extract_features(extractor, part), target) for part in made]
    everything = torch.arange(len(clean))
    out = {
        "pool": torch.tensor([judged.values(everything) for judged in sets], dtype=torch.float64),
        "spread": torch.stack([judged.features.var(0).sum() for judged in sets] + [target.features.var(0).sum()]),
        "detail": torch.stack([detail(part) for part in (*made, clean)]),
        "whole": paired_differences(sets, case.pairs, everything),
    }
    dim = target.features.shape[1]
    subsets = {ratio: [halves(case, n, r) for r in range(repeats)] for ratio, n in sizes(dim, case.pool)}
    for ratio, rows in subsets.items():
        if ratio in WITH_INTERVALS:
            out[f"interval{int(ratio * dim)}"] = intervals(sets, case.pairs, rows[:COVERED])
    found: dict[float, list[Tensor]] = {ratio: [] for ratio in subsets}
    for judged in sets:
        for ratio, rows in subsets.items():
            found[ratio].append(values_of(judged, rows))
        advance(1)
    keep(path, out | {f"n{int(ratio * dim)}": torch.stack(parts) for ratio, parts in found.items()})


def halves(case: Case, n: int, repeat: int) -> tuple[Tensor, Tensor]:
    """Two disjoint random subsets of n of the pool's image numbers: the same for all sets and cases."""
    order = torch.argsort(draws.derive(repeat, draws.stream(f"benchmarks/small_n/{n}"), torch.arange(case.pool)))
    return order[:n], order[n : 2 * n]


def values_of(judged: Judged, rows: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """(R, 2, M)."""
    return torch.tensor([[judged.values(part) for part in both] for both in rows], dtype=torch.float64)


Pairs = Sequence[tuple[int, int]]


def intervals(sets: Sequence[Judged], pairs: Pairs, rows: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """(P, C, 2, 2, 3)."""
    return torch.stack([torch.stack([paired_differences(sets, pairs, part) for part in both], 1) for both in rows], 1)


def paired_differences(sets: Sequence[Judged], pairs: Pairs, rows: Tensor) -> Tensor:
    """Low, value and high of a - b in FID and in KID, as `coldtune.metrics.compare` has them: (P, 2, 3)."""
    values, influences = zip(*(with_influences(judged, rows) for judged in sets), strict=True)
    found = [
        [jackknife_interval(values[a][m] - values[b][m], influences[a][m] - influences[b][m]) for m in range(2)]
        for a, b in pairs
    ]
    return torch.tensor([[[i.low, i.value, i.high] for i in pair] for pair in found], dtype=torch.float64)


def with_influences(judged: Judged, rows: Tensor) -> tuple[list[float], list[Tensor]]:
    """FID and KID of the images `rows`, and each image's influence on them."""
    features, moments = judged.features[rows], judged.target.moments
    values = [frechet_distance(moments, features), judged.kid(rows)]
    return values, [frechet_influences(moments, features), judged.kid_influences(rows)]


def detail(images: Tensor) -> Tensor:
    """Mean absolute difference of neighbouring pixels in [0, 1] units: the smaller, the smoother the images."""
    x = images.double() / 255
    across, down = x.diff(dim=-1).abs().mean(), x.diff(dim=-2).abs().mean()
    return (across + down) / 2


def targets(datasets: dict[str, Dataset], extractors: dict[str, str]) -> dict[str, Target]:
    """The reference of each dataset: all clean images of its validation split."""
    return {
        name: Target(extract_features(build_extractor(extractors[name]), dataset.split("validation").images))
        for name, dataset in datasets.items()
    }

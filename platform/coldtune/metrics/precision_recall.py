"""Improved precision and recall: how many generated features lie where real ones do, and the reverse."""

from __future__ import annotations

import torch
from torch import Tensor

from coldtune.metrics.descriptors import Distance, FeatureSets
from coldtune.metrics.intervals import Interval, share_interval
from coldtune.metrics.moments import feature_sets

NEIGHBOURS = 3
BLOCK = 2048  # rows and columns of the distances held at a time: 32 MB


def precision_recall(
    features: Tensor, reference_features: Tensor, neighbours: int = NEIGHBOURS, block: int = BLOCK
) -> tuple[float, float]:
    """Precision and recall, both in [0, 1], of features (N, d) against (M, d) (Kynkaanniemi et al., 2019, eq. 1-2).

    The manifold of a set is the union of balls around its vectors, each as large as the distance to its k-th nearest
    other vector. Precision is the share of the features that lie on the reference's manifold (fidelity: blur lowers
    it); recall the share of the reference that lies on the features' (variety). Swapping the sets swaps the two.
    The balls shrink as sets grow and one outlier makes a large one, so compare at equal N, M and k only. A larger k
    makes both larger. ValueError where a set has k vectors or fewer.
    """
    x, y = _sets(features, reference_features, neighbours, 1)
    precise = on_manifold(x, y, radii(y, neighbours, block), block)
    recalled = on_manifold(y, x, radii(x, neighbours, block), block)
    return float(precise.double().mean()), float(recalled.double().mean())


def precision_recall_influences(
    features: Tensor, reference_features: Tensor, neighbours: int = NEIGHBOURS, block: int = BLOCK
) -> tuple[Tensor, Tensor]:
    """Each image's influence on precision and on recall, float64 (N,) each, mean 0, with the reference fixed.

    Precision is a mean over the images, and these are its terms. Recall has no derivative, so they are the jackknife's:
    N - 1 times what it falls by when the image is left out (its ball goes, and balls that reached for it as one of
    their k nearest grow). The variance from them is, on average, not below the true one (Efron and Stein, 1981), for a
    set of N - 1. Neither says what another reference would change. ValueError as `precision_recall`, and for k + 1
    features, of which none can be left out.
    """
    x, y = _sets(features, reference_features, neighbours, 2)
    precise = on_manifold(x, y, radii(y, neighbours, block), block).double()
    change = _left_out(y, x, neighbours, block)
    recall = (len(x) - 1) / len(y) * (change.mean() - change)
    return precise - precise.mean(), recall


def radii(x: Tensor, neighbours: int, block: int = BLOCK) -> Tensor:
    """Squared distance of each vector (N, d) to its k-th nearest other one: (N,)."""
    return nearest(x, neighbours, block)[0][:, -1]


def nearest(x: Tensor, neighbours: int, block: int = BLOCK) -> tuple[Tensor, Tensor]:
    """Squared distances of each vector (N, d) to its k nearest other ones, ascending, and their rows: (N, k) both."""
    found = []
    for start in range(0, len(x), block):
        rows = x[start : start + block]
        best, places = x.new_empty(len(rows), 0), torch.empty(len(rows), 0, dtype=torch.int64, device=x.device)
        for column in range(0, len(x), block):
            distances = squared_distances(rows, x[column : column + block])
            if column == start:  # blocks of rows and columns are cut alike, so a vector meets itself here only
                distances.fill_diagonal_(torch.inf)
            near, order = distances.topk(min(neighbours, distances.shape[1]), largest=False)
            best, places = torch.cat([best, near], 1), torch.cat([places, column + order], 1)
            best, order = best.topk(min(neighbours, best.shape[1]), largest=False)
            places = places.gather(1, order)
        found.append((best, places))
    return torch.cat([best for best, _ in found]), torch.cat([places for _, places in found])


def on_manifold(x: Tensor, centres: Tensor, squared_radii: Tensor, block: int = BLOCK) -> Tensor:
    """Whether each vector (N, d) lies in at least one ball: bool (N,); centres (M, d), squared_radii (M,)."""
    result = []
    for rows in torch.split(x, block):
        inside = torch.zeros(len(rows), dtype=torch.bool, device=x.device)
        for balls, limits in zip(torch.split(centres, block), torch.split(squared_radii, block), strict=True):
            inside |= (squared_distances(rows, balls) <= limits).any(1)
        result.append(inside)
    return torch.cat(result)


def _left_out(x: Tensor, centres: Tensor, neighbours: int, block: int) -> Tensor:
    """By how many more of the vectors x (M, d) lie on the manifold of `centres` (N, d) without each of these: (N,)."""
    distances, places = nearest(centres, neighbours + 1, block)
    squared_radii, grown, reached_for = distances[:, -2], distances[:, -1], places[:, :-1]
    change = centres.new_zeros(len(centres))
    for rows in torch.split(x, block):
        count, only, larger = _balls_around(rows, centres, squared_radii, grown, block)
        row, ball = larger[:, count[larger[0]] <= 1]
        # Without `centre` the ball reaches further and holds the vector `row`: once for each such pair.
        pairs = torch.stack([row[:, None].expand(-1, neighbours), reached_for[ball]]).flatten(1)
        row, centre = torch.unique(pairs, dim=1)
        change += torch.bincount(centre[count[row] == 0], minlength=len(centres))
        kept = torch.zeros(len(rows), dtype=torch.bool, device=x.device)
        kept[row[only[row] == centre]] = True
        change -= torch.bincount(only[(count == 1) & ~kept], minlength=len(centres))
    return change


def _balls_around(
    rows: Tensor, centres: Tensor, squared_radii: Tensor, grown: Tensor, block: int
) -> tuple[Tensor, Tensor, Tensor]:
    """How many balls hold each row (B,), the last of them (B,), and the pairs (2, P) of rows and balls that would hold
    it only at the squared radius `grown`."""
    count = torch.zeros(len(rows), dtype=torch.int64, device=rows.device)
    last, larger = count.clone(), []
    for start in range(0, len(centres), block):
        part = slice(start, start + block)
        distances = squared_distances(rows, centres[part])
        inside = distances <= squared_radii[part]
        count += inside.sum(1)
        last = torch.where(inside.any(1), start + inside.int().argmax(1), last)
        row, ball = ((distances <= grown[part]) & ~inside).nonzero(as_tuple=True)
        larger.append(torch.stack([row, start + ball]))
    return count, last, torch.cat(larger, 1)


def _sets(features: Tensor, reference_features: Tensor, neighbours: int, more: int) -> tuple[Tensor, Tensor]:
    if neighbours < 1:
        raise ValueError(f"neighbours = {neighbours}: allowed are integers of at least 1")
    return feature_sets(features, reference_features, least=neighbours + more)


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """|x_i - y_j|^2 of (N, d) and (M, d): (N, M), by one matrix product.

    What is below the rounding of that product is 0, so that copies of a vector are at distance 0 of each other.
    """
    squares = (x * x).sum(1)[:, None] + (y * y).sum(1)
    distances = torch.addmm(squares, x, y.T, alpha=-2)
    return distances.masked_fill_(distances < squares.mul_(1e-13), 0.0)


def _values(sets: FeatureSets) -> tuple[float, float]:
    return precision_recall(sets.features, sets.reference_features)


def _influences(sets: FeatureSets) -> tuple[Tensor, Tensor]:
    return precision_recall_influences(sets.features, sets.reference_features)


def _wilson(share: float, influences: Tensor) -> Interval:
    return share_interval(share, len(influences))


PRECISION = Distance(
    value=lambda sets: sets.once(_values)[0],
    estimate=lambda sets: (sets.once(_values)[0], sets.once(_influences)[0]),
    interval=_wilson,  # precision is a share of independent images
    bounds=(0.0, 1.0),
    higher_is_better=True,
)
RECALL = Distance(
    value=lambda sets: sets.once(_values)[1],
    estimate=lambda sets: (sets.once(_values)[1], sets.once(_influences)[1]),
    bounds=(0.0, 1.0),
    higher_is_better=True,
)

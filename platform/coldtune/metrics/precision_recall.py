"""Improved precision and recall: the share of generated features that lie among real features, and the reverse."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from coldtune.metrics.descriptors import Distance, FeatureSets
from coldtune.metrics.intervals import share_interval_of_error
from coldtune.metrics.moments import feature_sets

NEIGHBOURS = 3
BLOCK = 2048  # rows and columns of the distances in memory at a time: 32 MB


def precision_recall(
    features: Tensor, reference_features: Tensor, neighbours: int = NEIGHBOURS, block: int = BLOCK
) -> tuple[float, float]:
    """Return precision and recall, both in [0, 1] (Kynkaanniemi et al., 2019, eq. 1-2).

    The manifold of a set is the union of balls around its vectors. The radius of a ball is the distance to the k-th
    nearest other vector. Precision is the share of the features that lie on the reference's manifold (fidelity: blur
    lowers it). Recall is the share of the reference that lies on the features' manifold (variety). Swapping the sets
    swaps the two numbers.

    The balls shrink as sets grow, and an outlier has a large ball. So compare at equal N, M and k only.

    Args:
        features: The features (N, d) of the judged images.
        reference_features: The features (M, d) of the reference's images.
        neighbours: The paper's k. A larger k makes both numbers larger.
        block: Distances are computed in pieces of block x block, which bound the memory.

    Raises:
        ValueError: If a set has k vectors or fewer.
    """
    x, y = _sets(features, reference_features, neighbours, 1)
    precise = on_manifold(x, y, radii(y, neighbours, block), block)
    recalled = on_manifold(y, x, radii(x, neighbours, block), block)
    return _mean(precise), _mean(recalled)


def precision_recall_influences(
    features: Tensor, reference_features: Tensor, neighbours: int = NEIGHBOURS, block: int = BLOCK
) -> tuple[Tensor, Tensor]:
    """Return each image's influence on precision and on recall, float64 (N,) each, mean 0, with the reference fixed.

    Precision is a mean over the images, and its influences are the terms of that mean. Recall has no derivative, so its
    influences are those of the jackknife: N - 1 times the decrease of recall if the image is left out. Its ball is then
    missing, and balls that had it among their k nearest vectors grow. On average, the variance from these influences is
    not below the true variance for a set of N - 1 (Efron and Stein, 1981).

    Raises:
        ValueError: If `precision_recall` refuses the sets, or there are only k + 1 features, so that no image can be
            left out.
    """
    x, y = _sets(features, reference_features, neighbours, 2)
    precise = on_manifold(x, y, radii(y, neighbours, block), block)
    return _influences(precise, y, x, nearest(x, neighbours + 1, block), block)


def _influences(
    precise: Tensor, y: Tensor, x: Tensor, nearest_of_x: tuple[Tensor, Tensor], block: int
) -> tuple[Tensor, Tensor]:
    """Return the influences of images x (N, d). `precise` (N,) says which lie on the manifold of y (M, d)."""
    share = precise.double()
    change = _left_out(y, x, nearest_of_x, block)
    return share - share.mean(), (len(x) - 1) / len(y) * (change.mean() - change)


def radii(x: Tensor, neighbours: int, block: int = BLOCK) -> Tensor:
    """Return the squared distance of each vector (N, d) to its k-th nearest other vector: (N,)."""
    return nearest(x, neighbours, block)[0][:, -1]


def nearest(x: Tensor, neighbours: int, block: int = BLOCK) -> tuple[Tensor, Tensor]:
    """Return the squared distances of each vector (N, d) to its k nearest others, ascending, and their rows: (N, k)."""
    blocks = []
    for start in range(0, len(x), block):
        rows = x[start : start + block]
        best, columns = x.new_empty(len(rows), 0), torch.empty(len(rows), 0, dtype=torch.int64, device=x.device)
        for column in range(0, len(x), block):
            distances = squared_distances(rows, x[column : column + block])
            if column == start:  # rows and columns have the same blocks, so a vector meets itself only here
                distances.fill_diagonal_(torch.inf)
            near, order = distances.topk(min(neighbours, distances.shape[1]), largest=False)
            best, columns = torch.cat([best, near], 1), torch.cat([columns, column + order], 1)
            best, order = best.topk(min(neighbours, best.shape[1]), largest=False)
            columns = columns.gather(1, order)
        blocks.append((best, columns))
    return torch.cat([best for best, _ in blocks]), torch.cat([columns for _, columns in blocks])


def on_manifold(x: Tensor, centres: Tensor, squared_radii: Tensor, block: int = BLOCK) -> Tensor:
    """Return which vectors (N, d) lie in at least one ball, bool (N,), for centres (M, d) and squared radii (M,)."""
    result = []
    for rows in torch.split(x, block):
        inside = torch.zeros(len(rows), dtype=torch.bool, device=x.device)
        for balls, limits in zip(torch.split(centres, block), torch.split(squared_radii, block), strict=True):
            inside |= (squared_distances(rows, balls) <= limits).any(1)
        result.append(inside)
    return torch.cat(result)


def _left_out(x: Tensor, centres: Tensor, nearest_of_centres: tuple[Tensor, Tensor], block: int) -> Tensor:
    """Return how many more of the vectors x (M, d) lie on the manifold if a centre is left out, for each centre: (N,).

    A ball whose k nearest vectors include the left-out centre grows to its (k + 1)-th nearest vector.

    Args:
        nearest_of_centres: The k + 1 vectors `nearest` to each centre.
    """
    distances, rows_of_nearest = nearest_of_centres
    squared_radii, grown, nearest_rows = distances[:, -2], distances[:, -1], rows_of_nearest[:, :-1]
    change = centres.new_zeros(len(centres))
    for rows in torch.split(x, block):
        count, only, larger = _balls_around(rows, centres, squared_radii, grown, block)
        row, ball = larger[:, count[larger[0]] <= 1]
        # Without `centre` the ball grows and contains the vector `row`. Several balls can, so each pair counts once.
        near = nearest_rows[ball]
        pairs = torch.stack([row[:, None].expand_as(near), near]).flatten(1)
        row, centre = torch.unique(pairs, dim=1)
        change += torch.bincount(centre[count[row] == 0], minlength=len(centres))
        kept = torch.zeros(len(rows), dtype=torch.bool, device=x.device)
        kept[row[only[row] == centre]] = True
        change -= torch.bincount(only[(count == 1) & ~kept], minlength=len(centres))
    return change


def _balls_around(
    rows: Tensor, centres: Tensor, squared_radii: Tensor, grown: Tensor, block: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Find the balls around each row (B, d).

    Returns:
        How many balls contain each row (B,), the last of these balls (B,), and the pairs of rows and balls (2, P) such
        that the ball contains the row only at the squared radius `grown`.
    """
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
    """Return |x_i - y_j|^2, (N, M), of sets (N, d) and (M, d), by one matrix product.

    Values below the rounding of that product become 0, so that copies of a vector are at distance 0 from each other.
    """
    squares = (x * x).sum(1)[:, None] + (y * y).sum(1)
    distances = torch.addmm(squares, x, y.T, alpha=-2)
    return distances.masked_fill_(distances < squares.mul_(1e-13), 0.0)


@dataclass(frozen=True)
class _Manifolds:
    """Both sets, the k + 1 vectors nearest to each vector of its own set, and which vectors lie on the other manifold.

    A set of k + 1 vectors has only k others. Its last column of distances is then infinite, and nobody reads it.
    """

    x: Tensor
    y: Tensor
    nearest_of_x: tuple[Tensor, Tensor]
    nearest_of_y: tuple[Tensor, Tensor]
    precise: Tensor
    recalled: Tensor

    @classmethod
    def of(cls, sets: FeatureSets) -> _Manifolds:
        x, y = _sets(sets.features, sets.reference_features, NEIGHBOURS, 1)
        # The pairs within the reference take longest by far, and are the same for all judged images.
        kept = sets.of_reference(f"nearest_{NEIGHBOURS + 1}", _nearest_by_name)
        of_x, of_y = nearest(x, NEIGHBOURS + 1), (kept["squared_distances"], kept["rows"])
        last = NEIGHBOURS - 1
        return cls(x, y, of_x, of_y, on_manifold(x, y, of_y[0][:, last]), on_manifold(y, x, of_x[0][:, last]))


def _nearest_by_name(features: Tensor) -> dict[str, Tensor]:
    squared, rows = nearest(features, NEIGHBOURS + 1)
    return {"squared_distances": squared, "rows": rows}


def _values(sets: FeatureSets) -> tuple[float, float]:
    found = sets.once(_Manifolds.of)
    return _mean(found.precise), _mean(found.recalled)


def _manifolds_to_leave_out_of(sets: FeatureSets) -> _Manifolds:
    """Return the manifolds, after checking that a vector can be left out of each set."""
    found = sets.once(_Manifolds.of)
    _sets(found.x, found.y, NEIGHBOURS, 2)
    return found


def _set_influences(sets: FeatureSets) -> tuple[Tensor, Tensor]:
    found = _manifolds_to_leave_out_of(sets)
    return _influences(found.precise, found.y, found.x, found.nearest_of_x, BLOCK)


def _reference_influences(sets: FeatureSets) -> tuple[Tensor, Tensor]:
    """Return each reference image's influence on precision and on recall. Swapping the sets swaps the two numbers."""
    found = _manifolds_to_leave_out_of(sets)
    recall, precision = _influences(found.recalled, found.x, found.y, found.nearest_of_y, BLOCK)
    return precision, recall


def _mean(share: Tensor) -> float:
    return float(share.double().mean())


PRECISION = Distance(
    value=lambda sets: sets.once(_values)[0],
    estimate=lambda sets: (sets.once(_values)[0], sets.once(_set_influences)[0]),
    reference_influences=lambda sets: sets.once(_reference_influences)[0],
    interval=share_interval_of_error,  # precision is a share of independent images
    bounds=(0.0, 1.0),
    higher_is_better=True,
)
RECALL = Distance(
    value=lambda sets: sets.once(_values)[1],
    estimate=lambda sets: (sets.once(_values)[1], sets.once(_set_influences)[1]),
    reference_influences=lambda sets: sets.once(_reference_influences)[1],
    bounds=(0.0, 1.0),
    higher_is_better=True,
)

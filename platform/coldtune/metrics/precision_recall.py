"""Improved precision and recall: how many generated features lie where real ones do, and the reverse."""

from __future__ import annotations

import torch
from torch import Tensor

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
    if neighbours < 1:
        raise ValueError(f"neighbours = {neighbours}: allowed are integers of at least 1")
    x, y = feature_sets(features, reference_features, least=neighbours + 1)
    precise = on_manifold(x, y, radii(y, neighbours, block), block)
    recalled = on_manifold(y, x, radii(x, neighbours, block), block)
    return float(precise.double().mean()), float(recalled.double().mean())


def radii(x: Tensor, neighbours: int, block: int = BLOCK) -> Tensor:
    """Squared distance of each vector (N, d) to its k-th nearest other one: (N,)."""
    result = []
    for start in range(0, len(x), block):
        rows = x[start : start + block]
        nearest = x.new_empty(len(rows), 0)
        for column in range(0, len(x), block):
            distances = squared_distances(rows, x[column : column + block])
            if column == start:  # blocks of rows and columns are cut alike, so a vector meets itself here only
                distances.fill_diagonal_(torch.inf)
            candidates = torch.cat([nearest, distances], 1)
            nearest = candidates.topk(min(neighbours, candidates.shape[1]), largest=False).values
        result.append(nearest[:, -1])
    return torch.cat(result)


def on_manifold(x: Tensor, centres: Tensor, squared_radii: Tensor, block: int = BLOCK) -> Tensor:
    """Whether each vector (N, d) lies in at least one ball: bool (N,); centres (M, d), squared_radii (M,)."""
    result = []
    for rows in torch.split(x, block):
        inside = torch.zeros(len(rows), dtype=torch.bool, device=x.device)
        for balls, limits in zip(torch.split(centres, block), torch.split(squared_radii, block), strict=True):
            inside |= (squared_distances(rows, balls) <= limits).any(1)
        result.append(inside)
    return torch.cat(result)


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """|x_i - y_j|^2 of (N, d) and (M, d): (N, M), by one matrix product.

    What is below the rounding of that product is 0, so that copies of a vector are at distance 0 of each other.
    """
    squares = (x * x).sum(1)[:, None] + (y * y).sum(1)
    distances = squares - 2 * x @ y.T
    return torch.where(distances < 1e-13 * squares, 0.0, distances)

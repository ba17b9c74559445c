"""Retrieval scores: how often the nearest neighbour in feature space is the right image."""

from __future__ import annotations

import torch
from torch import Tensor

_CHUNK = 512  # queries at a time


def nearest(queries: Tensor, gallery: Tensor, leave_out_self: bool = False) -> Tensor:
    """Return the index of each query's nearest gallery vector by Euclidean distance, int64 (Q,).

    Args:
        queries: Floating (Q, d).
        gallery: Floating (G, d).
        leave_out_self: Query i is gallery vector i, which is no answer.
    """
    found = []
    for start in range(0, len(queries), _CHUNK):
        # A matrix product loses half of the digits, of which float64 has enough, and is many times faster for pixels.
        part = queries[start : start + _CHUNK].double()
        distances = torch.cdist(part, gallery.double(), compute_mode="use_mm_for_euclid_dist")
        if leave_out_self:
            rows = torch.arange(len(distances))
            distances[rows, rows + start] = torch.inf
        found.append(distances.argmin(1))
    return torch.cat(found)


def label_retrieval(features: Tensor, labels: Tensor) -> float:
    """Return the share of images whose nearest other image has their label.

    Args:
        features: Floating (N, d), with N >= 2.
        labels: int64 (N,).
    """
    return float((labels[nearest(features, features, leave_out_self=True)] == labels).double().mean())


def view_retrieval(first: Tensor, second: Tensor) -> float:
    """Return the share of images whose first view is nearest to their own second view, among all second views.

    Args:
        first: Features of a view of each image, floating (N, d).
        second: Features of another view of each image, in the same order.
    """
    return float((nearest(first, second) == torch.arange(len(first))).double().mean())

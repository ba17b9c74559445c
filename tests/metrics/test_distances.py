from __future__ import annotations

import pytest
import torch

from coldtune.metrics import (
    Reference,
    distances,
    fid_infinity,
    frechet_distance,
    kid,
    mind,
    precision_recall,
)


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


X, Y = _random(80, 6) + 0.3, _random(90, 6, seed=1)


def test_distances_equal_single_functions_under_one_seed() -> None:
    reference = Reference.of(Y)
    precision, recall = precision_recall(X, Y)
    expected = {
        "fid": frechet_distance(reference, X), "fid_infinity": fid_infinity(X, reference, 4), "kid": kid(X, Y),
        "mind": mind(X, Y, 4), "precision": precision, "recall": recall,
    }  # fmt: skip
    assert distances(X, Y, reference, names=list(expected), seed=4) == expected
    assert distances(X, Y, names=list(expected), seed=4) == expected


def test_distances_only_requested_names_in_that_order() -> None:
    assert list(distances(X, Y, names=["mind", "fid"])) == ["mind", "fid"]
    assert distances(X, Y, names=[]) == {}


def test_distances_missing_reference_features_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="kid, recall: needs the features of the reference's images"):
        distances(X, None, Reference.of(Y), ["kid", "fid", "recall"])
    with pytest.raises(ValueError, match="neither reference_features nor reference given"):
        distances(X, None, names=["fid", "fid_infinity"])


def test_distances_wrong_input_is_refused() -> None:
    with pytest.raises(ValueError, match="distances 'fdi', 'lpips': allowed are fid, fid_infinity, kid, mind, prec"):
        distances(X, Y, names=["fdi", "kid", "lpips"])
    with pytest.raises(ValueError, match="80 reference features, but moments of 90: not one set"):
        distances(X, X, Reference.of(Y))

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from coldtune.metrics import (
    MemoryCache,
    Reference,
    distances,
    estimates,
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


def test_estimates_what_the_reference_alone_determines_is_computed_once() -> None:
    """A second set of images finds it in the cache, and its estimates are those without a cache."""
    cache, second = _CountingCache(), X.flip(1)
    reference = replace(Reference.of(Y), cache=cache, key="of Y")
    first = estimates(X, Y, reference, resample_reference=True)
    assert (built := cache.built.copy()) == {"reference_kid": 1, "reference_nearest_4": 1}
    found = estimates(second, Y, reference, resample_reference=True)
    assert cache.built == built
    for kept, sets in ((first, X), (found, second)):
        for name, alone in estimates(sets, Y, resample_reference=True).items():
            assert kept[name].interval == alone.interval, name
            assert torch.equal(kept[name].influences, alone.influences), name
            of_reference = alone.reference_influences
            assert of_reference is None or torch.equal(kept[name].reference_influences, of_reference), name


def test_estimates_influences_of_both_sets_swap_with_the_sets() -> None:
    """KID and MIND are symmetric, and precision of a set is recall of the other."""
    one, other = (estimates(*sets, resample_reference=True) for sets in ((X, Y), (Y, X)))
    for name, swapped in {"kid": "kid", "mind": "mind", "precision": "recall", "recall": "precision"}.items():
        torch.testing.assert_close(one[name].reference_influences, other[swapped].influences)
        assert one[name].interval.value == pytest.approx(other[swapped].interval.value)


class _CountingCache(MemoryCache):
    """Counts how often an entry was built, by kind."""

    def __init__(self) -> None:
        super().__init__()
        self.built: Counter[str] = Counter()

    def get(self, kind: str, key: str, build: Callable[[], dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        def count() -> dict[str, torch.Tensor]:
            self.built[kind] += 1
            return build()

        return super().get(kind, key, count)


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

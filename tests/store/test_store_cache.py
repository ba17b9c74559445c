"""The cache of metrics in a store."""

from __future__ import annotations

import pytest
import torch

from coldtune.store.cache import StoreCache
from coldtune.store.store import Store


def test_cache_returns_tensors_bit_for_bit(store: Store) -> None:
    made = {"mean": torch.rand(3, dtype=torch.float64), "images": torch.arange(4, dtype=torch.uint8).reshape(2, 2).T}
    cache = StoreCache(store)
    first = cache.get("reference", "k", lambda: made)
    second = StoreCache(store).get("reference", "k", lambda: pytest.fail("built twice"))
    for name, tensor in made.items():
        assert torch.equal(first[name], tensor)
        assert torch.equal(second[name], tensor)

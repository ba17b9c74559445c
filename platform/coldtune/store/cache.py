"""The cache of computed tensors that `coldtune.metrics` takes by argument, kept in a store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from coldtune.store.store import Store

if TYPE_CHECKING:
    from torch import Tensor


class StoreCache:
    """The cache that `coldtune.metrics` takes by argument, kept in a store as safetensors."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def get(self, kind: str, key: str, build: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """The tensors under (kind, key), computed by `build` once."""
        from safetensors.torch import load_file, save_file

        def write(directory: Path) -> None:
            save_file({name: value.contiguous() for name, value in build().items()}, directory / "data.safetensors")

        entry, _ = self.store.get(kind, key, write)
        return load_file(entry.path / "data.safetensors")

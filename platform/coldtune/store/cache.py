"""The cache of tensors that `coldtune.metrics` takes as an argument, kept in a store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from coldtune.store.store import Store
from coldtune.tensor_files import save_tensors

if TYPE_CHECKING:
    from torch import Tensor


class StoreCache:
    """Named tensors as store entries, each a safetensors file.

    Args:
        rename: Turns the key of a tensor into the key of its entry.
    """

    def __init__(self, store: Store, rename: Callable[[str], str] = lambda key: key) -> None:
        self.store, self.rename = store, rename

    def get(self, kind: str, key: str, build: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """Return the tensors under (kind, key). If the store does not hold them, compute them with `build` first."""
        from safetensors.torch import load_file  # with torch

        def write(directory: Path) -> None:
            save_tensors(build(), directory / "data.safetensors")

        entry, _ = self.store.get(kind, self.rename(key), write)
        return load_file(entry.path / "data.safetensors")

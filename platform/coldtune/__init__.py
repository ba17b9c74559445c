"""coldtune: distributed hyperparameter search and ablation for generalised ("cold") diffusion."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from coldtune.diffusion import build_degradation, build_restorer, sample

# Importing torch takes seconds. `import coldtune` and `coldtune --help` should not wait for it.
_LAZY = {
    "build_degradation": "coldtune.diffusion",
    "build_restorer": "coldtune.diffusion",
    "sample": "coldtune.diffusion",
}

__all__ = ["__version__", "build_degradation", "build_restorer", "sample"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

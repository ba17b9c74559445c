"""The datasets that can be prepared. To add a dataset, add a file to `sources/` and a line here."""

from __future__ import annotations

from coldtune.data.source import Source
from coldtune.data.sources.afhq import Afhq
from coldtune.data.sources.celeba import CelebA
from coldtune.data.sources.cifar10 import Cifar10
from coldtune.data.sources.digits import Digits
from coldtune.data.sources.folder import Folder
from coldtune.data.sources.mnist import Mnist
from coldtune.data.sources.parquet import Parquet

_SOURCES: dict[str, Source] = {
    Afhq.name: Afhq(),
    CelebA.name: CelebA(),
    Cifar10.name: Cifar10(),
    Digits.name: Digits(),
    Folder.name: Folder(),
    Mnist.name: Mnist(),
    Parquet.name: Parquet(),
}

OWN = (Folder.name, Parquet.name)
"""The datasets whose images are the user's own. No judge ships for them."""


def names() -> list[str]:
    """Return the names of all datasets that can be prepared, sorted."""
    return sorted(_SOURCES)


def channels(name: str) -> int:
    """Return the number of channels of the dataset `name`. Raises ValueError listing the names if it is unknown."""
    return source(name).channels


def source(name: str) -> Source:
    """Return the source called `name`. Raises ValueError listing the names if it is unknown."""
    try:
        return _SOURCES[name]
    except KeyError:
        raise ValueError(f"unknown dataset {name!r}; allowed: {', '.join(names())}") from None

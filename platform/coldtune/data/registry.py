"""The datasets that can be prepared. A new one: one file in `sources/` and one line here."""

from __future__ import annotations

from coldtune.data.source import Source
from coldtune.data.sources.afhq import Afhq
from coldtune.data.sources.celeba import CelebA
from coldtune.data.sources.cifar10 import Cifar10
from coldtune.data.sources.digits import Digits
from coldtune.data.sources.mnist import Mnist

_SOURCES: dict[str, Source] = {
    Afhq.name: Afhq(),
    CelebA.name: CelebA(),
    Cifar10.name: Cifar10(),
    Digits.name: Digits(),
    Mnist.name: Mnist(),
}


def names() -> list[str]:
    """Names of all datasets that can be prepared, sorted."""
    return sorted(_SOURCES)


def channels(name: str) -> int:
    """C of the images of the dataset `name`; ValueError listing the names for another one."""
    return source(name).channels


def source(name: str) -> Source:
    """The source called `name`; ValueError listing the names for another one."""
    try:
        return _SOURCES[name]
    except KeyError:
        raise ValueError(f"unknown dataset {name!r}; allowed: {', '.join(names())}") from None

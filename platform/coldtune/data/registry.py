"""The datasets that can be prepared. A new one: one file in `sources/` and one line here."""

from __future__ import annotations

from coldtune.data.source import Source
from coldtune.data.sources.cifar10 import Cifar10
from coldtune.data.sources.digits import Digits
from coldtune.data.sources.mnist import Mnist

_SOURCES: dict[str, Source] = {
    Cifar10.name: Cifar10(),
    Digits.name: Digits(),
    Mnist.name: Mnist(),
}

ELSEWHERE = {"afhq": 3, "celeba": 3}
"""Datasets of the paper that presets name and that nothing here can prepare yet, with their channels."""


def names() -> list[str]:
    """Names of all datasets that can be prepared, sorted."""
    return sorted(_SOURCES)


def channels(name: str) -> int:
    """C of the images of a dataset, also of one that is only known by name; ValueError for another one."""
    return ELSEWHERE[name] if name in ELSEWHERE else source(name).channels


def source(name: str) -> Source:
    """The source called `name`; ValueError listing the names for another one."""
    try:
        return _SOURCES[name]
    except KeyError:
        if name in ELSEWHERE:
            raise ValueError(f"dataset {name!r}: cannot be prepared yet; allowed: {', '.join(names())}") from None
        raise ValueError(f"unknown dataset {name!r}; allowed: {', '.join(names())}") from None

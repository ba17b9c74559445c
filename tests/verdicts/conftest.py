"""Settings with made-up trainings, for tests of verdicts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch

from coldtune.verdicts import Setting, Training

MakeSetting = Callable[..., Setting]


@pytest.fixture
def setting() -> MakeSetting:
    """Return a maker of settings: `setting("a", [1.0, 1.2], images=0.1, networks="x")`."""

    def make(
        name: str,
        values: Sequence[float],
        images: float = 0.0,
        count: int = 50,
        networks: str | None = None,
        seeds: Sequence[int] | None = None,
        missing: str = "",
    ) -> Setting:
        generator = torch.Generator().manual_seed(sum(map(ord, name)))
        trainings = []
        for i, value in enumerate(values):
            noise = torch.randn(count, generator=generator, dtype=torch.float64) * images * count**0.5
            seed = i if seeds is None else seeds[i]
            trainings.append(Training(value, noise - noise.mean(), seed, f"{networks or name}/{seed}"))
        return Setting(name, tuple(trainings), missing)

    return make

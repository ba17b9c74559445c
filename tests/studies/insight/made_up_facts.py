"""Facts of studies that never ran: random points of a space, and values of a known function."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from coldtune.studies.insight.facts import SettingFacts, StudyFacts
from coldtune.studies.search.objective import Objective
from coldtune.studies.space.space import Space

Value = Callable[[Mapping[str, Any]], float]

SPACE = """
base: digits-quick
vary:
  training.lr: {low: 1.0e-4, high: 1.0e-2, log: true}
  sampler.num_steps: {low: 1, high: 20}
  sampler.clamp: {choices: [false, true]}
"""


def facts_of(space: Space, value: Value, count: int = 30, trainings: int = 1, **changes: Any) -> StudyFacts:
    """Return the facts of a study of random points, whose trainings have the value of their point."""
    rng = random.Random(0)
    points = [space.sample(rng) for _ in range(count)]
    settings = [
        SettingFacts(number, point, tuple((value(point),) for _ in range(trainings)))
        for number, point in enumerate(points)
    ]
    return StudyFacts(
        **{
            "name": "study",
            "home": Path("/home"),
            "objectives": (Objective(metric="fid"),),
            "settings": tuple(settings),
            "paths": space.paths,
            "distributions": space.distributions,
            "replicated": trainings > 1,
            **changes,
        }
    )

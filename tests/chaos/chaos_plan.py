"""Which studies are killed, in what ways, and how often: small ones, each with the promise that it has to keep."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import Any

KINDS = ("driver", "trial", "worker", "raylet", "mlflow", "postgres")
"""What is killed: the job's process, a trial's, one of several that train a trial, Ray's on a node, a server's."""

COSTLY = {"driver": 1.0, "raylet": 1.0, "worker": 1.0}
"""Kinds after which much has to start again: hit less often than the others, which weigh `_CHEAP`."""

_CHEAP = 1.5
_DEATHS = 2  # of a trial's processes in one run of the driver: one more, and the trial counts as failed


@dataclass(frozen=True)
class Scenario:
    """A study.

    identical: whether it must end with the table of the unbroken one, bit for bit; else with as many trials.
    head: CPUs of a Ray head that runs beside it; None where the study starts its own Ray. span: seconds of a quiet
    machine over which the instants of kills are spread.
    """

    name: str
    trials: int
    kinds: tuple[str, ...]
    settings: dict[str, Any] = field(default_factory=dict)
    identical: bool = True
    workers: int = 1
    head: int | None = None
    postgres: bool = False
    span: float = 10.0

    @property
    def alone(self) -> bool:
        """Whether one trial runs at a time, on the machines of this test."""
        return self.workers > 1 or self.head == 1

    @property
    def steps(self) -> int:
        """Of each training."""
        return int(self.settings.get("training.steps", 60))


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("tpe", 6, ("driver", "trial", "raylet", "mlflow"), {"search.algorithm": "tpe"}, head=1),
        Scenario(
            "random", 8, ("driver", "trial", "raylet", "mlflow", "postgres"), {"search.algorithm": "random"},
            postgres=True,
        ),
        Scenario(
            "workers", 4, ("worker", "driver", "mlflow"), {"search.algorithm": "random", "training.steps": 40},
            workers=2, span=20.0,
        ),
        Scenario(
            "pruning", 8, ("driver", "trial", "raylet", "mlflow", "postgres"),
            {
                "search.algorithm": "tpe", "pruning.kind": "successive_halving", "pruning.reduction_factor": 2,
                "pruning.startup": 1, "rungs.steps": "[10,20,40]", "rungs.num_images": 32,
            },
            identical=False, postgres=True,
        ),
    )
}  # fmt: skip


@dataclass
class Dice:
    """What is killed next, and when: from one seed, printed, but for what the machine does in between."""

    random: Random
    hits: Counter[str] = field(default_factory=Counter)
    wanted: tuple[str, ...] = KINDS

    def kind(self, scenario: Scenario, deaths: int) -> str | None:
        """A kind that this study can lose, of those whose turn it is."""
        able = [kind for kind in scenario.kinds if kind in self.wanted]
        able = [kind for kind in able if kind not in ("trial", "worker") or deaths < _DEATHS]
        if not able:
            return None
        least = min(map(self.share, able))
        return self.random.choice([kind for kind in able if self.share(kind) == least])

    def share(self, kind: str) -> float:
        """How often it was hit, of how often it shall be."""
        return self.hits[kind] / COSTLY.get(kind, _CHEAP)

    def instant(self, scenario: Scenario) -> float:
        """Seconds from when the study last went on."""
        return self.random.uniform(0, scenario.span)

    def outage(self) -> float:
        """Seconds that a server stays away."""
        return self.random.uniform(0.5, 8)

"""The small studies that are killed, the processes that are killed, and the choice of the next kill."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import Any

KINDS = ("driver", "trial", "worker", "raylet", "mlflow", "postgres")
"""The processes that are killed. `worker` trains a trial together with others. `raylet` is Ray's process on a node."""

COSTLY = {"driver": 1.0, "raylet": 1.0, "worker": 1.0}
"""Kinds after which much has to start again, so they are killed less often than the others, which weigh `_CHEAP`."""

_CHEAP = 1.5
_DEATHS = 2  # processes of a trial that may die under the same driver; a third death makes the trial fail


@dataclass(frozen=True)
class Scenario:
    """A study to be killed.

    Attributes:
        identical: True if the study must end with the same table, bit for bit, as an unbroken study. If False, it must
            end with the same number of trials.
        head: CPUs of a Ray head that runs beside the study, or None if the study starts its own Ray.
        span: Kills come at random within so many seconds after the study has started or continued.
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
        """True if trials run one after another on the machine of this test."""
        return self.workers > 1 or self.head == 1

    @property
    def steps(self) -> int:
        """The number of steps of each training."""
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
class KillChooser:
    """The random choice of kills. The same seed makes the same choices, up to the timing of the machine."""

    random: Random
    hits: Counter[str] = field(default_factory=Counter)
    wanted: tuple[str, ...] = KINDS

    def kind(self, scenario: Scenario, deaths: int) -> str | None:
        """Choose the next kind to kill, among the kinds that this study can lose and that were killed least so far."""
        possible = [kind for kind in scenario.kinds if kind in self.wanted]
        possible = [kind for kind in possible if kind not in ("trial", "worker") or deaths < _DEATHS]
        if not possible:
            return None
        least = min(map(self.share, possible))
        return self.random.choice([kind for kind in possible if self.share(kind) == least])

    def share(self, kind: str) -> float:
        """Return the kills of a kind so far, relative to the weight of the kind."""
        return self.hits[kind] / COSTLY.get(kind, _CHEAP)

    def delay(self, scenario: Scenario) -> float:
        """Choose the seconds until the next kill."""
        return self.random.uniform(0, scenario.span)

    def outage(self) -> float:
        """Choose the seconds for which a killed server stays down."""
        return self.random.uniform(0.5, 8)

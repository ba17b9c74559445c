"""The reports of a trial's process to its driver, in the form in which the driver stores them.

The names of the fields are the names of the stored attributes. Storages outlive versions of coldtune, so a name never
changes its meaning, and a field whose attribute is missing has a default.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple, Self

from coldtune.config import parse
from coldtune.metrics.protocol import Protocol


class StoredStage(NamedTuple):
    """One stage of a trial.

    `stage` is `train`, `sample` or `measure` with a suffix, for example `sample_direct` or `measure_40` at rung 40.
    `key` is its key in the store. `seconds` is the time that it took, or that was saved if it was found in the store.
    """

    stage: str
    key: str
    found: bool
    seconds: float


@dataclass(frozen=True)
class Effort:
    """The work of a trial, as far as it is known.

    Attributes:
        found: By kind of stage (`train`, `sample`, `measure`), how many the trial found in the store.
        trained: Seconds of the trial's own training. None if the training was found.
        saved: Seconds of work that the trial found done.
        seconds: Wall time in seconds, including the time before an interruption.
    """

    found: Mapping[str, int] = field(default_factory=dict)
    trained: float | None = None
    saved: float | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class TrialOutcome:
    """The outcome of a trial, as its process reports it to the driver.

    Attributes:
        metrics: By name. The suffixes `_direct`, `_naive` and `_degraded` mark the other sets of images.
        protocol: The plain values of the protocol behind the metrics. None only if nothing was measured.
        images, measured: Addresses of the sampled images and of their judgements in the store, by set of images.
        checkpoint: Address of the restorer in the store.
        rungs: By step, the metrics at that rung.
        draws: By further protocol seed, the metrics of the trial's own sampler with its draws.
        computed: The plain values of how the trial computed (`coldtune.stages.compute.Compute`). None if nobody
            recorded it: then its number of threads is unknown.
        environment: The machine and the software (`coldtune.store.provenance.keep_environment`).
    """

    metrics: Mapping[str, float] = field(default_factory=dict)
    protocol: Mapping[str, Any] | None = None
    stages: tuple[StoredStage, ...] = ()
    images: Mapping[str, str] = field(default_factory=dict)
    measured: Mapping[str, str] = field(default_factory=dict)
    checkpoint: str | None = None
    rungs: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    draws: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    effort: Effort = field(default_factory=Effort)
    computed: Mapping[str, Any] | None = None
    environment: Mapping[str, Any] = field(default_factory=dict)

    @property
    def judged_under(self) -> Protocol | None:
        """The protocol of the metrics."""
        return None if self.protocol is None else parse(Protocol, self.protocol, "protocol")

    def attributes(self) -> dict[str, Any]:
        """Return the outcome as stored attributes."""
        written = {
            "metrics": dict(self.metrics),
            "protocol": self.protocol,
            "stages": [list(stage) for stage in self.stages],
            "images": dict(self.images),
            "measured": dict(self.measured),
            "checkpoint": self.checkpoint,
            "rungs": {str(step): dict(values) for step, values in self.rungs.items()},
            "draws": {str(seed): dict(values) for seed, values in self.draws.items()},
            "computed": self.computed,
            "environment": dict(self.environment),
        }
        absent = ("protocol", "checkpoint", "draws", "computed", "environment")
        unknown = [key for key in absent if not written[key]]
        return {**{key: value for key, value in written.items() if key not in unknown}, **asdict(self.effort)}

    def to_json(self) -> str:
        """Return the outcome as text, because Tune flattens and copies every nested report."""
        return json.dumps(self.attributes())

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read the text that `to_json` wrote."""
        return cls(**outcome_fields(json.loads(text)))


@dataclass(frozen=True)
class Rung:
    """A trial's report from a rung, at which it may end.

    Attributes:
        step, steps: The step of the rung, and the number of steps of the whole training.
        metric: The metric by which rungs are judged.
        values: Metrics by name.
        stages: The trial's stages so far.
        effort: The trial's work so far.
        training_seconds: Seconds of the training since its first step, whoever trained it.
    """

    step: int
    steps: int
    metric: str
    values: Mapping[str, float]
    stages: tuple[StoredStage, ...] = ()
    effort: Effort = field(default_factory=Effort)
    training_seconds: float = 0.0

    def to_json(self) -> str:
        """Return the rung as text, because Tune flattens and copies every nested report."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read the text that `to_json` wrote."""
        tree = json.loads(text)
        stages, effort = _stages(tree.pop("stages")), Effort(**tree.pop("effort"))
        return cls(**tree, stages=stages, effort=effort)

    def __str__(self) -> str:
        return f"at step {self.step:,} of {self.steps:,}: {self.metric.upper()} {self.values[self.metric]:.4g}"


def outcome_fields(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of `TrialOutcome` that are stored."""
    names = ("metrics", "protocol", "images", "measured", "checkpoint", "computed", "environment")
    fields = {key: stored[key] for key in names if key in stored}
    effort = {key: stored[key] for key in ("found", "trained", "saved", "seconds") if key in stored}
    rungs = {int(step): dict(values) for step, values in stored.get("rungs", {}).items()}
    draws = {int(seed): dict(values) for seed, values in stored.get("draws", {}).items()}
    for name, value in [
        *fields.get("metrics", {}).items(),
        *(item for values in (*rungs.values(), *draws.values()) for item in values.items()),
    ]:
        if not isinstance(value, int | float | None):
            raise TypeError(f"{name} = {value!r} is not a number")
    stages = _stages(stored.get("stages", ()))
    return {**fields, "stages": stages, "rungs": rungs, "draws": draws, "effort": Effort(**effort)}


def _stages(rows: Iterable[Iterable[Any]]) -> tuple[StoredStage, ...]:
    return tuple(StoredStage(*list(row)[:4]) for row in rows)

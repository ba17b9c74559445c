"""What a study would ask and cost, before it is run: the space as a table, sampled points, a timed probe."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from coldtune.data import Dataset, to_float
from coldtune.diffusion import build_degradation, build_restorer, nfe, sample
from coldtune.metrics.protocol import Protocol
from coldtune.stages.chain import BASELINES
from coldtune.stages.trial import TrialConfig, short_name
from coldtune.studies.space import Space
from coldtune.studies.space_config import VARIANT, Vary
from coldtune.training.loop import TrainingTask, train

PROBE_STEPS = 6  # of training, after as many to warm up
PROBE_IMAGES = 64  # of one evaluation of the network


@dataclass(frozen=True)
class Probe:
    """What was timed on this machine with the base's restorer, on one trial's threads.

    images_per_s: of training; evaluations_per_s: of the network while sampling, in images.
    """

    images_per_s: float
    evaluations_per_s: float

    def seconds(self, trial: TrialConfig, num_images: int) -> float:
        """A trial's training, and the sampling of its own sampler and the baselines; nothing found, nothing judged."""
        training = trial.training
        trained = training.steps * training.batch_size * training.accumulate / self.images_per_s
        steps = int(trial.degradation["steps"])
        evaluations = sum(nfe(sampler, steps) for sampler in (trial.sampler, *BASELINES.values()))
        return trained + num_images * evaluations / self.evaluations_per_s


class _Forget:
    """Checkpoints of a training that nobody wants to keep."""

    def latest(self, at_most: int) -> None:
        return None

    def save(self, step: int, write: Callable[[Path], None]) -> None:
        pass


def probe(trial: TrialConfig, dataset: Dataset, source: Dataset | None = None, device: str = "cpu") -> Probe:
    """Time a few steps of training and a few evaluations of `trial`'s network (random weights: the same cost)."""
    once = trial.training.model_copy(
        update={"steps": PROBE_STEPS, "validate_every": 0, "checkpoint_every": 0, "report_every": PROBE_STEPS}
    )
    task = TrainingTask(
        data=trial.data, dataset_path=str(dataset.path), degradation=trial.degradation, restorer=trial.restorer,
        training=once, source_path=str(source.path) if source else None,
    )  # fmt: skip
    train(task, _Forget(), lambda *_: None, device=device)
    images_per_s = train(task, _Forget(), lambda *_: None, device=device).images_per_s
    return Probe(images_per_s, _evaluations_per_s(trial, dataset, device))


def _evaluations_per_s(trial: TrialConfig, dataset: Dataset, device: str) -> float:
    d = build_degradation(trial.degradation, dataset.image_shape)
    restorer = build_restorer(trial.restorer, dataset.image_shape, steps=d.steps).to(device).eval()
    x = to_float(dataset.split("train").images[:PROBE_IMAGES].to(device))
    times = []
    for _ in range(3):
        started = time.perf_counter()
        sample(restorer, d, x, sampler={"algorithm": "direct"})
        torch.cuda.synchronize() if device == "cuda" else None
        times.append(time.perf_counter() - started)
    return len(x) / min(times)


def preview(space: Space, protocol: Protocol, found: Probe, trials: int, slots: int, count: int = 10) -> RenderableType:
    """The space as a table, the base and sampled points with what each would cost, and the whole study's cost."""
    points = _points(space, count)
    costs = [found.seconds(space.resolve(point), protocol.num_images) for point in points]
    each = sum(costs) / len(costs)
    lines = [
        f"the space: {_size(space)}",
        f"this machine trains {found.images_per_s:,.0f} images/s and evaluates {found.evaluations_per_s:,.0f} a second "
        "with the base's restorer",
        f"{trials} trials: about {_time(each * trials)} of work, {_time(each * trials / slots)} with {slots} at once, "
        "without what the store has, judging and start-up",
    ]
    return Group(_space_table(space), Text(), _points_table(space, points, costs), Text("\n".join(lines)))


def _points(space: Space, count: int) -> list[dict[str, Any]]:
    """The base's point, then points that the search may ask, drawn uniformly."""
    if space.size is not None:
        return [{VARIANT: name} for name in list(space.config.variants)[:count]]
    rng = random.Random(0)
    points = [dict(space.first)]
    for _ in range(200 * count):
        if len(points) == count:
            break
        point = space.sample(rng)
        if space.feasible(point) and point not in points:
            points.append(point)
    return points


def _size(space: Space) -> str:
    if space.size is not None:
        return f"{space.size} variants"
    share = f"{space.feasible_share():.0%} of it may be asked"
    try:
        return f"{len(space.grid()):,} points as a grid, {share}"
    except ValueError:  # no grid: a range without steps
        return f"{len(space.distributions)} keys, some of them continuous, {share}"


def _space_table(space: Space) -> Table:
    table = Table("key", "in tables", "values", "only where", box=None, pad_edge=False)
    if space.config.variants:
        table.add_row(VARIANT, VARIANT, ", ".join(space.config.variants), "")
    for path, vary in space.config.vary.items():
        where = ", ".join(f"{key} is {' or '.join(map(str, values))}" for key, values in vary.when.items())
        table.add_row(path, short_name(path), _values(vary), where)
    for path, derive in space.config.derive.items():
        table.add_row(path, short_name(path), f"derived: holds {derive.hold} at {space.targets[path]:.3g}", "")
    for name, bound in space.config.constrain.items():
        table.add_row(name, "", f"kept {bound}", "")
    return table


def _values(vary: Vary) -> str:
    if vary.choices is not None:
        return ", ".join("null" if choice is None else str(choice) for choice in vary.choices)
    step = f", in steps of {vary.step:g}" if vary.step else ""
    return f"{vary.low:g} to {vary.high:g}{step}{', logarithmic' if vary.log else ''}"


def _points_table(space: Space, points: list[dict[str, Any]], costs: list[float]) -> Table:
    names = list(space.distributions)
    table = Table("", *names, "about", box=None, pad_edge=False)
    for number, (point, seconds) in enumerate(zip(points, costs, strict=True)):
        cells = [_shown(point, name) for name in names]
        table.add_row("base" if not number else "", *cells, _time(seconds))
    return table


def _shown(point: Mapping[str, Any], name: str) -> str:
    value = point.get(name, "")
    return f"{value:.4g}" if isinstance(value, float) else "null" if value is None else str(value)


def _time(seconds: float) -> str:
    return str(timedelta(seconds=max(round(seconds), 1)))

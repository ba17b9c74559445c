"""The repetition of a finished trial in an empty store, and how far its results agree with those of the first run."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from coldtune.data.progress import Bars, show
from coldtune.diffusion import nfe
from coldtune.metrics import Judgement, check_same
from coldtune.metrics.protocol import Protocol
from coldtune.stages.chain import BASELINES, SAMPLED, Chain, Outcome
from coldtune.stages.compute import Compute
from coldtune.stages.evaluate import FinishedTrial
from coldtune.stages.keys import DEGRADED
from coldtune.stages.trial import RungConfig
from coldtune.store.checkpoints import StoreCheckpoints
from coldtune.store.store import Entry, Store
from coldtune.training.loop import train

SETS = (DEGRADED, *BASELINES, SAMPLED)
"""The sets of images of a trial."""

EXPLAINING = (
    "commit", "changes", "coldtune", "python", "torch", "packages", "device", "host", "threads", "workers",
)  # fmt: skip
"""The parts of an environment that can change the last bits of a result, and after a training much more."""
LISTED = (*EXPLAINING, "system", "cpus")
UNKNOWN = "not recorded"

_EMA = "ema.safetensors"


@dataclass(frozen=True, eq=False)
class FirstRun:
    """Everything that is known of the first run of a trial.

    Attributes:
        metrics: The values by the names of `Outcome.metrics`.
        protocol: The protocol of the values.
        made: By part of the trial (`trial`, `training`, `sampling`, `measurement`), the environment that made it.
        checkpoint: The restorer in the store. None if it is gone.
        images: By set of images, those that are still in the store.
        seconds: How long the training took. None if that is not known.
    """

    metrics: Mapping[str, float]
    protocol: Protocol
    made: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    checkpoint: Path | None = None
    images: Mapping[str, Path] = field(default_factory=dict)
    seconds: float | None = None


@dataclass(frozen=True)
class EnvironmentDifference:
    """A part of the environment that differs between the first run and now.

    Attributes:
        name: A name in `LISTED`.
        then: By value, the parts of the trial that were made with it.
        now: The value in this process.
    """

    name: str
    then: Mapping[str, Sequence[str]]
    now: str

    @property
    def explains(self) -> bool:
        """True if results may differ for this reason."""
        return self.name in EXPLAINING

    def __str__(self) -> str:
        then = "; ".join(f"{_short(value)}{self._parts(value)}" for value in self.then)
        return f"{self.name}: then {then}, now {_short(self.now)}"

    def _parts(self, value: str) -> str:
        """Return the parts of the trial that were made with a value, if others were made with another value."""
        return f" ({', '.join(self.then[value])})" if len(self.then) > 1 else ""


@dataclass(frozen=True)
class ImageAgreement:
    """How many of the images of a set are equal, and the largest difference of a pixel, in levels of 0 to 255."""

    count: int
    equal: int
    largest: int


@dataclass(frozen=True)
class Agreement:
    """How far the results of two runs of a trial agree.

    Attributes:
        metrics: By name, the values of the first run and of the repetition.
        weights: The largest difference of two weights of the restorer. None if the first restorer is gone.
        images: By set of images.
    """

    metrics: Mapping[str, tuple[float, float]]
    weights: float | None
    images: Mapping[str, ImageAgreement]

    @property
    def differing(self) -> list[str]:
        """The names of the values that are not equal bit for bit."""
        return [name for name, (then, now) in self.metrics.items() if not _same(then, now)]

    @property
    def exact(self) -> bool:
        """True if everything that can be compared is equal bit for bit."""
        return not (self.differing or self.weights or any(part.largest for part in self.images.values()))


def find_first_run(
    run: FinishedTrial, store: Store, device: torch.device | str, threads: int | None = None
) -> FirstRun | None:
    """Return what the store holds of the first run of a trial. None if it holds no values of it.

    Args:
        threads: The CPU threads of the first run. None if they are not known.
    """
    known = () if threads is None else (Compute(device="cpu", threads=threads),)
    chain = _chain(run, store, device, (*known, *run.computed))
    sets = {DEGRADED: None, **BASELINES, SAMPLED: run.config.sampler}
    images: dict[str, Entry] = {}
    judged: dict[str, Entry] = {}
    for name, sampler in sets.items():
        key = chain.sample_key(sampler)
        if (entry := store.find("sample", key)) is not None:
            images[name] = entry
        if (entry := store.find("measure", chain.measure_key(key))) is not None:
            judged[name] = entry
    if SAMPLED not in judged:
        return None
    judgements = {name: Judgement.load(entry.path) for name, entry in judged.items()}
    checkpoint = store.find("train", StoreCheckpoints.entry_key(chain.train_key(), run.config.training.steps))
    parts = {"training": checkpoint, "sampling": images.get(SAMPLED), "measurement": judged[SAMPLED]}
    return FirstRun(
        metrics=Outcome(judgements, chain.nfe, chain.protocol, ()).metrics,
        protocol=judgements[SAMPLED].protocol,
        made={part: entry.made for part, entry in parts.items() if entry is not None and entry.made},
        checkpoint=checkpoint.path if checkpoint else None,
        images={name: entry.path for name, entry in images.items()},
        seconds=float(checkpoint.about["seconds"]) if checkpoint else None,
    )


def first_run_of_files(
    run: FinishedTrial, judged: Mapping[str, Mapping[str, Any]], record: Mapping[str, Any]
) -> FirstRun:
    """Return what the files of a trial's MLflow run say of its first run.

    Args:
        run: The trial.
        judged: By set of images, the content of its metrics.json.
        record: The content of record.json.

    Raises:
        ValueError: If a protocol is not one of this version.
    """
    judgements = {name: Judgement.of_values(values) for name, values in judged.items()}
    evaluations = nfe(run.config.sampler, int(run.config.degradation["steps"]))
    environment = record.get("environment") or {}
    trained = [each for each in record.get("stages", ()) if each["stage"] == "train"]
    return FirstRun(
        metrics=Outcome(judgements, evaluations, judgements[SAMPLED].protocol, ()).metrics,
        protocol=judgements[SAMPLED].protocol,
        made={"trial": environment} if environment else {},
        seconds=float(trained[0]["seconds"]) if trained else None,
    )


def check_protocol(run: FinishedTrial, store: Store, device: torch.device | str, protocol: Protocol) -> None:
    """Raise ValueError if a repetition would be judged under another protocol than `protocol`, that of the first run.

    For example, the weights of the extractor may have changed.
    """
    check_same([protocol, _chain(run, store, device, run.computed).protocol])


def repeat(run: FinishedTrial, store: Store, device: torch.device | str = "cpu", progress: bool = True) -> Outcome:
    """Train, sample and measure a trial anew, in this process.

    The rungs of the trial are left out. They change nothing of its results.

    Args:
        store: An empty store.
        progress: Show progress bars on standard error, if that is a terminal.
    """
    chain = _chain(run, store, device)
    with show(progress) as bars:
        return _run(chain, bars, device)


def compare_environments(then: Mapping[str, Mapping[str, Any]], now: Mapping[str, Any]) -> list[EnvironmentDifference]:
    """Return the parts of the environment in which the first run differs from this process.

    Args:
        then: By part of the trial, its environment (see `provenance.made`).
        now: The environment of this process.
    """
    found = []
    for name in LISTED:
        values: dict[str, list[str]] = {}
        for part, environment in then.items():
            if environment.get(name) is not None:
                values.setdefault(str(environment[name]), []).append(part)
        here = str(now.get(name))
        if not values and name == "threads":
            values = {UNKNOWN: list(then) or ["trial"]}
        if now.get(name) is not None and set(values) - {here}:
            found.append(EnvironmentDifference(name, values, here))
    return found


def compare_software(then: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Return the packages whose versions differ, and `changes` if the changes of the checkout differ.

    A package that only one of them lists is left out. A process of Ray also finds the packages inside of Ray.

    Args:
        then: The content of a study's `environments/DIGEST.json`.
        now: The same of this process.

    Returns:
        By name, the versions then and now.
    """
    old, new = then.get("packages", {}), now.get("packages", {})
    names = sorted(old.keys() & new.keys(), key=str.lower)
    found = {name: (str(old[name]), str(new[name])) for name in names if old[name] != new[name]}
    if any(then.get(part) != now.get(part) for part in ("diff", "untracked")):
        found["changes"] = ("other uncommitted changes", "these")
    return found


def compare_results(first: FirstRun, again: Outcome) -> Agreement:
    """Compare the results of a trial with those of its repetition: weights, images and values."""
    new = again.metrics
    images = {name: _compare_images(path, again.images[name]) for name, path in first.images.items()}
    return Agreement(
        metrics={name: (value, new[name]) for name, value in first.metrics.items() if name in new},
        weights=None if first.checkpoint is None else _compare_weights(first.checkpoint, again.checkpoint),
        images=images,
    )


def _chain(run: FinishedTrial, store: Store, device: torch.device | str, found: Sequence[Compute | None] = ()) -> Chain:
    config = run.config.model_copy(update={"rungs": RungConfig()})
    return Chain(config, run.dataset, store, device, run.source, found)


def _run(chain: Chain, bars: Bars, device: torch.device | str) -> Outcome:
    training = bars.start("train", chain.config.training.steps, "steps")
    sampling = bars.start("sample", 100, "%")
    steps, share = 0, 0.0

    def report(step: int, metrics: Mapping[str, float]) -> None:
        nonlocal steps
        training(step - steps)
        steps = step

    def progress(stage: str, done: float) -> None:
        nonlocal share
        sampling(100 * (done - share))
        share = done

    return chain.run(partial(train, device=device), report, progress)


def _compare_weights(then: Path, now: Path) -> float:
    """Return the largest difference of two weights."""
    old, new = load_file(then / _EMA), load_file(now / _EMA)
    assert old.keys() == new.keys()
    return max(float((old[name].double() - new[name].double()).abs().max()) for name in old)


def _compare_images(then: Path, now: Path) -> ImageAgreement:
    old, new = (_images(path) for path in (then, now))
    difference = (old - new).abs().flatten(1).amax(dim=1)
    return ImageAgreement(len(old), int((difference == 0).sum()), int(difference.max()))


def _images(path: Path) -> Tensor:
    return load_file(path / "images.safetensors")["images"].to(torch.int16)


def _short(value: str) -> str:
    """Return a value with 12 digits of a commit."""
    return re.sub(r"\b([0-9a-f]{12})[0-9a-f]{28}\b", r"\1", value)


def _same(then: float, now: float) -> bool:
    return then == now or (math.isnan(then) and math.isnan(now))

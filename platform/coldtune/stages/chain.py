"""A trial as a chain of stages: train -> sample -> measure, each found in the store or computed and kept there."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from coldtune.config import plain
from coldtune.data import Dataset, to_float, to_uint8
from coldtune.diffusion import build_degradation, draws, nfe, sample
from coldtune.diffusion.degradations import Degradation
from coldtune.diffusion.samplers import SamplerConfig
from coldtune.metrics import build_extractor, image_set_metrics, reference_statistics, resolve
from coldtune.metrics.extractors import Extractor
from coldtune.metrics.protocol import Protocol
from coldtune.stages.keys import DEGRADED, measure_key, sample_key, train_key
from coldtune.stages.store import Entry, Store, StoreCache, StoreCheckpoints
from coldtune.stages.trial import TrialConfig
from coldtune.training import read_history
from coldtune.training.loop import Report, TrainingTask, TrainResult, load_restorer

Train = Callable[[TrainingTask, StoreCheckpoints, Report], TrainResult]
"""How a training is run: in this process, or by several workers."""

DRAWS = 1  # the stream of the protocol's draws: one per image index, the same for every trial

# Beside the trial's own sampler, every trial shows the paper's two baselines on the same restorer.
BASELINES = {"direct": SamplerConfig(algorithm="direct"), "naive": SamplerConfig(algorithm="naive")}
SAMPLED = "sampled"
STRIP_IMAGES, STRIP_STEPS = 8, 10


@dataclass(frozen=True)
class StageRecord:
    """One stage of one trial: whether its result was found, and the seconds that it took or, where found, saved.

    earlier: of a training that went on from a checkpoint, the seconds that this checkpoint stands for.
    """

    stage: str
    key: str
    found: bool
    seconds: float
    earlier: float = 0.0


@dataclass(frozen=True)
class Outcome:
    """What a finished trial is: its values under one protocol, where its images lie and what it cost.

    metrics: `fid`, `ssim`, `rmse`, `psnr` of the trial's own sampler; with the suffix `_direct`, `_naive` and
    `_degraded`, of R(x_T, T), of Algorithm 1 and of x_T itself; `nfe` = network evaluations per sampled image.
    """

    metrics: Mapping[str, float]
    protocol: Protocol
    stages: tuple[StageRecord, ...]
    images: Mapping[str, Path] = field(default_factory=dict)
    checkpoint: Path = Path()


class Chain:
    """The stages of one trial on one prepared dataset, in one store."""

    def __init__(self, config: TrialConfig, dataset: Dataset, store: Store, device: torch.device | str = "cpu") -> None:
        config.check(dataset.image_shape)
        self.config, self.dataset, self.store, self.device = config, dataset, store, torch.device(device)
        self.degradation: Degradation = build_degradation(config.degradation, dataset.image_shape)
        self.extractor: Extractor = build_extractor(config.protocol.extractor)
        self.protocol: Protocol = resolve(config.protocol, self.extractor, dataset)
        self.records: list[StageRecord] = []

    def run(
        self,
        train: Train,
        report: Report,
        progress: Callable[[str, float], None] = lambda *_: None,
        replay: Report = lambda *_: None,
    ) -> Outcome:
        """Bring every stage about.

        `report` gets the metrics of a training as it goes on, `progress` (stage, share done in 0..1), and `replay`
        those of a training that was made before this trial came, so that its run shows the whole curve.
        """
        checkpoint = self.train(train, report, replay)
        metrics: dict[str, float] = {}
        images: dict[str, Path] = {}
        sets: dict[str, SamplerConfig | None] = {DEGRADED: None, **BASELINES, SAMPLED: self.config.sampler}
        for number, (name, sampler) in enumerate(sets.items()):
            entry = self.sample(name, sampler, checkpoint, _part(progress, number, len(sets)))
            values = self.measure(name, entry)
            suffix = "" if name == SAMPLED else f"_{name}"
            metrics |= {f"{metric}{suffix}": value for metric, value in values.items()}
            images[name] = entry.path
        metrics["nfe"] = float(nfe(self.config.sampler, self.degradation.steps))
        return Outcome(metrics, self.protocol, tuple(self.records), images, checkpoint)

    def train(self, train: Train, report: Report, replay: Report = lambda *_: None) -> Path:
        """The checkpoint at `training.steps`: found, or trained from the nearest one before it."""
        key, steps = train_key(self.config, self.dataset), self.config.training.steps
        checkpoints = StoreCheckpoints(self.store.root, key, final=steps)
        last = checkpoints.latest(steps)
        earlier = checkpoints.seconds(last[0]) if last else 0.0
        for past in read_history(last[1]) if last else ():
            replay(int(past["step"]), {name: value for name, value in past.items() if name != "step"})
        found = last is not None and last[0] == steps
        if found:
            self.records.append(StageRecord("train", f"{key}/{steps}", True, earlier))
        else:
            result = train(self._task(), checkpoints, report)
            last = checkpoints.latest(steps)
            self.records.append(StageRecord("train", f"{key}/{steps}", False, result.seconds, earlier))
        assert last is not None
        assert last[0] == steps, f"the training ended at step {last[0]} of {steps}"
        return last[1]

    def sample(
        self,
        name: str,
        sampler: SamplerConfig | None,
        checkpoint: Path,
        progress: Callable[[float], None] = lambda _: None,
    ) -> Entry:
        """The protocol's images, degraded to x_T and sampled back by `sampler` (None: left degraded), as uint8."""
        key = sample_key(self.config, self.dataset, sampler)
        started = time.monotonic()

        def build(directory: Path) -> dict[str, Any]:
            out, strip = self._sample(sampler, checkpoint, progress)
            save_file({"images": out}, directory / "images.safetensors")
            if strip:
                save_file({f"{s:06d}": x for s, x in strip.items()}, directory / "strip.safetensors")
            return {"sampler": plain(sampler) if sampler else None, "seconds": time.monotonic() - started}

        entry, found = self.store.get("sample", key, build)
        seconds = float(entry.about["seconds"]) if found else time.monotonic() - started
        if sampler is not None:
            self.records.append(StageRecord(_stage("sample", name), key, found, seconds))
        return entry

    def measure(self, name: str, images: Entry) -> dict[str, float]:
        """The values of one set of images under the trial's protocol."""
        key = measure_key(images.key, self.protocol)
        started = time.monotonic()

        def build(directory: Path) -> dict[str, Any]:
            clean = self.clean()
            reference = reference_statistics(
                self.extractor, self._reference_images(), self.protocol, StoreCache(self.store)
            )
            made = load_file(images.path / "images.safetensors")["images"]
            values = image_set_metrics(made, clean, self.extractor, reference, device=self.device)
            record = {"values": values, "protocol": plain(self.protocol), "images": images.key}
            (directory / "metrics.json").write_text(json.dumps(record, indent=1))
            return {"seconds": time.monotonic() - started}

        entry, found = self.store.get("measure", key, build)
        seconds = float(entry.about["seconds"]) if found else time.monotonic() - started
        self.records.append(StageRecord(_stage("measure", name), key, found, seconds))
        values: dict[str, float] = json.loads((entry.path / "metrics.json").read_text())["values"]
        return values

    def clean(self) -> Tensor:
        """The protocol's clean images, uint8 (N, C, H, W)."""
        return self._reference_images()[self.protocol.image_indices()]

    def _task(self) -> TrainingTask:
        return TrainingTask(
            data=self.config.data,
            dataset_path=str(self.dataset.path),
            degradation=self.config.degradation,
            restorer=self.config.restorer,
            training=self.config.training,
        )

    def _reference_images(self) -> Tensor:
        return self.dataset.split(self.config.protocol.split).images

    def _sample(
        self, sampler: SamplerConfig | None, checkpoint: Path, progress: Callable[[float], None], batch_size: int = 256
    ) -> tuple[Tensor, dict[int, Tensor]]:
        """uint8 images (N, C, H, W), and the iterates x_s by s of the first few (none where nothing is sampled)."""
        config, degradation, indices = self.config, self.degradation, self.protocol.image_indices()
        steps = degradation.steps
        restorer = None
        if sampler is not None:
            restorer = load_restorer(checkpoint, config.restorer, self.dataset.image_shape, steps, device=self.device)
        total = len(indices) * (nfe(sampler, steps) if sampler else 1)
        done = 0
        parts: list[Tensor] = []
        strip: dict[int, Tensor] = {}
        for chunk in torch.split(indices, batch_size):
            clean = to_float(self._reference_images()[chunk].to(self.device))
            seeds = draws.derive(config.protocol.seed, DRAWS, chunk).to(self.device)
            draw = degradation.draw(seeds)
            x = degradation(clean, steps, draw)
            if restorer is None or sampler is None:
                parts.append(to_uint8(x).cpu())
                continue

            def watch(step: Mapping[str, Any], first: bool = not parts, size: int = len(chunk)) -> None:
                nonlocal done
                done += size
                progress(done / total)
                if first:
                    strip[int(step["s"])] = to_uint8(step["x_s"][:STRIP_IMAGES]).cpu()

            out = sample(restorer, degradation, x, sampler=sampler, draw=draw, callback=watch, seeds=seeds)
            if not parts:
                strip[0] = to_uint8(out[:STRIP_IMAGES]).cpu()
            parts.append(to_uint8(out).cpu())
        return torch.cat(parts), _thin(strip)


def _stage(stage: str, images: str) -> str:
    return stage if images == SAMPLED else f"{stage}_{images}"


def _part(progress: Callable[[str, float], None], number: int, of: int) -> Callable[[float], None]:
    """The progress of the set of images `number` as that of all `of` sets."""
    return lambda share: progress("sample", (number + share) / of)


def _thin(strip: dict[int, Tensor]) -> dict[int, Tensor]:
    """At most STRIP_STEPS of the iterates, evenly spread, the first and the last among them."""
    steps = sorted(strip, reverse=True)
    if len(steps) > STRIP_STEPS:
        steps = [steps[round(i * (len(steps) - 1) / (STRIP_STEPS - 1))] for i in range(STRIP_STEPS)]
    return {s: strip[s] for s in steps}

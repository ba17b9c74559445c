"""The images of small_n_ranking.py: restorers at two lengths of training, each sampled directly and by TACoS.

A folder for each case, and in it a checkpoint for each length and a file for each set of images: what is there is not
made again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from coldtune.config import parse
from coldtune.data import DataConfig, Dataset, to_float, to_uint8
from coldtune.diffusion import build_degradation, draws, nfe, sample
from coldtune.diffusion.restorer import RestorerConfig
from coldtune.diffusion.samplers import SamplerConfig
from coldtune.training.checkpoints import FolderCheckpoints
from coldtune.training.config import TrainingConfig
from coldtune.training.loop import TrainingTask, load_restorer, train

Advance = Callable[[float], object]

BATCH = 32
BACKWARD = 3  # a training step costs about as much as so many evaluations of its images
SAMPLERS = ("direct", "tacos")
DRAWS = draws.stream("benchmarks/small_n/draws")


@dataclass(frozen=True)
class Case:
    """One restorer: what it undoes, its seed, and the two lengths (in steps) at which it is sampled.

    pool: how many images of the validation split are restored. A case's name is that of its folder.
    """

    dataset: str
    image_size: int
    extractor: str
    kind: str
    degradation: Mapping[str, Any]
    seed: int
    lengths: tuple[int, int]
    pool: int
    draw: str = "fixed"

    @property
    def name(self) -> str:
        return f"{self.dataset}-{self.kind}-{self.seed}"

    @property
    def data(self) -> DataConfig:
        return DataConfig(name=self.dataset, image_size=self.image_size)

    @property
    def restorer(self) -> RestorerConfig:
        return RestorerConfig(size="micro")

    @property
    def sets(self) -> list[tuple[int, str]]:
        """(length, sampler) of each of the four sets of images."""
        return [(length, sampler) for length in self.lengths for sampler in SAMPLERS]

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """Of `sets`: direct and TACoS at each length, 1x and 4x by each sampler."""
        return [(0, 1), (2, 3), (0, 2), (1, 3)]

    def sampler(self, algorithm: str) -> SamplerConfig:
        draw = self.draw if algorithm == "tacos" else "fixed"
        return parse(SamplerConfig, {"algorithm": algorithm, "draw": draw}, "sampler")

    def training_cost(self) -> int:
        """In evaluations of the network on one image."""
        return self.lengths[-1] * BATCH * BACKWARD

    def sampling_cost(self, algorithm: str) -> int:
        return self.pool * nfe(self.sampler(algorithm), self.degradation["steps"])

    def cost(self) -> int:
        return self.training_cost() + sum(self.sampling_cost(algorithm) for _, algorithm in self.sets)


def make(case: Case, dataset: Dataset, folder: Path, advance: Advance) -> None:
    """Bring about the four sets of images of `case`, as far as they are not in `folder` yet."""
    remember(folder / "case.json", asdict(case))
    for length in case.lengths:
        checkpoint = trained(case, length, dataset, folder, advance)
        for algorithm in SAMPLERS:
            path = images_file(folder, length, algorithm)
            if path.exists():
                advance(case.sampling_cost(algorithm))
            else:
                keep(path, {"images": restored(case, algorithm, dataset, checkpoint, advance)})


def images_file(folder: Path, length: int, algorithm: str) -> Path:
    return folder / f"{length:05d}-{algorithm}.safetensors"


def images(folder: Path, length: int, algorithm: str) -> Tensor:
    """uint8 (pool, C, H, W), in the order of `pool_indices`."""
    return load_file(images_file(folder, length, algorithm))["images"]


def trained(case: Case, length: int, dataset: Dataset, folder: Path, advance: Advance) -> Path:
    """The checkpoint at step `length`; the longer training goes on from the shorter one."""
    checkpoints = FolderCheckpoints(folder / "checkpoints")
    config = TrainingConfig(
        steps=length, batch_size=BATCH, seed=case.seed, validate_every=0, checkpoint_every=0, report_every=25
    )
    task = TrainingTask(case.data, str(dataset.path), dict(case.degradation), case.restorer, config)
    before = checkpoints.latest(length)
    last = before[0] if before else 0
    earlier = max((other for other in case.lengths if other < length), default=0)
    advance((last - earlier) * BATCH * BACKWARD)

    def report(step: int, _: Mapping[str, float]) -> None:
        nonlocal last
        advance((step - last) * BATCH * BACKWARD)
        last = step

    train(task, checkpoints, report, device="cpu")
    found = checkpoints.latest(length)
    assert found is not None
    assert found[0] == length
    return found[1]


def restored(case: Case, algorithm: str, dataset: Dataset, checkpoint: Path, advance: Advance) -> Tensor:
    """The pool's images, degraded to x_T with the same draws for every set and sampled back, uint8."""
    degradation = build_degradation(case.degradation, dataset.image_shape)
    sampler = case.sampler(algorithm)
    restorer = load_restorer(checkpoint, case.restorer, dataset.image_shape, degradation.steps)
    clean, parts = dataset.split("validation").images, []
    for chunk in torch.split(pool_indices(case, len(clean)), 250):
        seeds = draws.derive(0, DRAWS, chunk)
        draw = degradation.draw(seeds)
        x = degradation(to_float(clean[chunk]), degradation.steps, draw)
        parts.append(to_uint8(sample(restorer, degradation, x, sampler=sampler, draw=draw, seeds=seeds)))
        advance(case.sampling_cost(algorithm) * len(chunk) / case.pool)
    return torch.cat(parts)


def pool_indices(case: Case, size: int) -> Tensor:
    """Positions in a validation split of `size` images, int64 (pool,), ascending: the same for all cases."""
    order = torch.argsort(draws.derive(0, draws.stream("benchmarks/small_n/pool"), torch.arange(size)))
    return order[: case.pool].sort().values


def keep(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file that appears whole or not at all."""
    scratch = path.with_name(f".{path.name}.new")
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, scratch)
    os.replace(scratch, path)


def remember(path: Path, settings: Any) -> None:
    """Write `settings`; ValueError where what lies there was made with others."""
    text = json.dumps(settings, indent=1, sort_keys=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and json.loads(path.read_text()) != json.loads(text):
        raise ValueError(f"{path}: made with other settings; name another folder, or delete {path.parent}")
    path.write_text(text)

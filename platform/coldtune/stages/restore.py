"""The restoration of a user's own pictures by the restorer and the sampler of a finished trial."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from coldtune.data import to_float, to_uint8
from coldtune.data.progress import show
from coldtune.diffusion import build_degradation, draws, nfe, sample
from coldtune.diffusion.degradations import Degradation
from coldtune.diffusion.priors import Start, build_prior
from coldtune.diffusion.samplers import SamplerConfig, StepCallback
from coldtune.memory import Batches
from coldtune.stages.chain import BASELINES, DRAWS
from coldtune.stages.evaluate import FinishedTrial
from coldtune.stages.finished_restorer import find_checkpoints, find_restorer
from coldtune.stages.keys import PLAIN
from coldtune.stages.weights import Weights
from coldtune.store.store import Store
from coldtune.training import load_restorer


@dataclass(frozen=True, eq=False)
class Restored:
    """The restored pictures, uint8 (N, C, H, W) each.

    Attributes:
        degraded: The start x_T.
        direct: The estimate R(x_T, T) of the restorer at the end of the training.
        sampled: The images of the trial's own sampler. None if that sampler needs a draw which is not known.
        notices: What was done otherwise than in the trial, a sentence each.
    """

    degraded: Tensor
    direct: Tensor
    sampled: Tensor | None
    notices: tuple[str, ...] = ()


class Restoration:
    """Everything that restores pictures as a trial does, checked before the network runs.

    Args:
        degraded: True if the pictures are degraded already, each as D(x, T) of an unknown image x. Otherwise they are
            degraded here.

    Raises:
        ValueError: If the restorer is not in the store.
    """

    def __init__(
        self, run: FinishedTrial, store: Store, device: torch.device | str = "cpu", degraded: bool = False
    ) -> None:
        self.run, self.device, self.degraded = run, torch.device(device), degraded
        self.checkpoints = find_checkpoints(run, store, find_restorer(run, store))
        source = run.source.split("train").images if run.source else None
        self.d = build_degradation(run.config.degradation, run.dataset.image_shape, source)
        self.notices: list[str] = []
        self.sampler = self._choose_sampler()
        self.prior = build_prior(self._start_config(), self.d)

    @property
    def samples(self) -> bool:
        """False if only direct restoration is possible."""
        return self.sampler is not None

    def run_on(self, pictures: Tensor, seed: int | None = None, progress: bool = True) -> Restored:
        """Restore pictures.

        Args:
            pictures: uint8 (N, C, H, W), in the shape of the trial's images.
            seed: The seed of the degradation's draws. None takes the trial's protocol.seed.
            progress: Show a progress bar on standard error, if that is a terminal.
        """
        config, steps = self.run.config, self.d.steps
        seed = config.protocol.seed if seed is None else seed
        samplers = {"direct": BASELINES["direct"], **({"sampled": self.sampler} if self.sampler else {})}
        load = partial(
            load_restorer,
            restorer=config.restorer,
            image_shape=self.run.dataset.image_shape,
            steps=steps,
            device=self.device,
        )
        restorers = {
            name: Weights.of(config.training, each).restorer(self.checkpoints, load) for name, each in samplers.items()
        }
        work = sum(nfe(sampler, steps) for sampler in samplers.values()) * len(pictures)
        with show(progress) as bars:
            advance = bars.start("restore", work, "NFE")

            def count(sampler: SamplerConfig, images: int) -> StepCallback:
                return lambda _: advance(images * sampler.evaluations_per_step)

            def restore(chunk: Tensor) -> list[Tensor]:
                seeds = draws.derive(seed, DRAWS, chunk).to(self.device)
                x, draw = self._start(pictures[chunk], seeds)
                out = [to_uint8(x).cpu()]
                for name, sampler in samplers.items():
                    rule, on_step = sampler.without_weights(), count(sampler, len(x))
                    images = sample(restorers[name], self.d, x, rule, draw, on_step, seeds)
                    out.append(to_uint8(images).cpu())
                return out

            parts = Batches(256, "restoring").run(torch.arange(len(pictures)), restore)
        sets = [torch.cat(images) for images in zip(*parts, strict=True)]
        return Restored(sets[0], sets[1], sets[2] if self.sampler else None, tuple(self.notices))

    def _start(self, pictures: Tensor, seeds: Tensor) -> Start:
        if self.degraded:
            return Start(to_float(pictures).to(self.device), None)
        return self.prior.start(seeds, None, pictures.to(self.device))

    def _start_config(self) -> Mapping[str, Any]:
        config = self.run.config
        if config.task == "generated" and not self.degraded:
            self.notices.append(
                "This trial generates images from a prior. Your pictures are degraded by D(x, T) instead."
            )
            return PLAIN
        return config.prior if config.task == "restored" and config.prior else PLAIN

    def _choose_sampler(self) -> SamplerConfig | None:
        """Return the trial's sampler, changed if it needs a draw that is not known. None if it cannot be changed."""
        sampler = self.run.config.sampler
        if not (self.degraded and _needs_draw(self.d, sampler)):
            return sampler
        unknown = f"The draw with which {self.d.kind} degraded these pictures is not known."
        if self.d.estimable:
            self.notices.append(f"{unknown} The sampler estimates the draw at each step (sampler.draw: estimated).")
            return sampler.model_copy(update={"draw": "estimated", "off_by_one": False})
        self.notices.append(f"{unknown} Only direct restoration is possible.")
        return None


def _needs_draw(d: Degradation, sampler: SamplerConfig) -> bool:
    return d.random and sampler.draw == "fixed" and sampler.algorithm != "direct"

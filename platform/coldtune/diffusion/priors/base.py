"""What every prior is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import ClassVar, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from coldtune.config import Config
from coldtune.diffusion import draws
from coldtune.diffusion.degradations.base import Degradation, Draw
from coldtune.diffusion.degradations.images import check_images_of, to_range

State = Mapping[str, Tensor]
"""What a prior learned from the training images: named tensors, as safetensors holds them; empty where nothing was."""

_BREAK = draws.stream("prior/symmetry breaking")
_CHUNK = 1024


class PriorConfig(Config):
    """What every prior's configuration has.

    noise_scale: standard deviation, in [-1, 1] units, of Gaussian noise that is added once to x_T. Where x_T is flat,
    it breaks the symmetry between pixels, without which few different images arise (5.2: .002 lowers FID by half).
    """

    kind: str
    noise_scale: float = Field(default=0.0, ge=0)


class Start(NamedTuple):
    """Where sampling starts: x_T float32 (B, C, H, W), and the draw that goes with it (None: D is deterministic)."""

    x_T: Tensor  # noqa: N815
    draw: Draw | None


class Prior(ABC):
    """The distribution of x_T for one degradation.

        prior = build_prior({"kind": "gmm", "components": 1}, d)
        state = prior.fit(train_images, seed=0)            # once; a few numbers
        x_T, draw = prior.start(seeds, state)
        images = sample(restorer, d, x_T, sampler, draw=draw, seeds=seeds)

    A subclass implements `_start`, and `fit` where it learns from images. What it draws depends on an image's own seed
    alone, so any batch size gives the same images.
    """

    config_type: ClassVar[type[PriorConfig]]
    takes_images: ClassVar[bool] = False
    """Whether `start` degrades images that it is handed."""

    def __init__(self, config: PriorConfig, d: Degradation) -> None:
        self.config, self.d = config, d

    @property
    def learns(self) -> bool:
        """Whether `start` needs what `fit` returned."""
        return False

    def fit(self, images: Tensor, seed: int = 0) -> State:
        """What `start` needs to know of the training images, uint8 or floating (N, C, H, W), on the CPU; float64.

        seed: of a fit that starts at random. The same images and seed give the same state.
        """
        return {}

    def start(self, seeds: Tensor, state: State | None = None, images: Tensor | None = None) -> Start:
        """x_T and its draw for each of seeds, int64 (B,), on their device.

        state: what `fit` returned; None where nothing is learned. images: the clean images (B, C, H, W) to degrade,
        uint8 or in [-1, 1], for the prior `data` alone.
        """
        if self.learns and not state:
            raise ValueError(f"prior.kind = {self.config.kind!r}: learns from images; hand in what fit returned")
        if self.takes_images != (images is not None):
            needs = "degrades images; hand them in" if self.takes_images else "takes no images"
            raise ValueError(f"images: the prior {self.config.kind!r} {needs}")
        moved = {name: value.to(seeds.device, torch.float32) for name, value in (state or {}).items()}
        x_T, draw = self._start(seeds, moved, images)
        if self.config.noise_scale:
            x_T = x_T + self.config.noise_scale * draws.normal(seeds, _BREAK, self.d.image_shape)
        return Start(x_T, draw)

    @abstractmethod
    def _start(self, seeds: Tensor, state: State, images: Tensor | None) -> tuple[Tensor, Draw | None]:
        """x_T before its symmetry is broken, and the draw; the state comes in float32, on the seeds' device."""

    def _flat(self, color: Tensor) -> Tensor:
        """Images of one colour each, from (B, C)."""
        return color.to(torch.float32)[:, :, None, None].expand(-1, *self.d.image_shape).contiguous()


def channel_means(images: Tensor, d: Degradation) -> Tensor:
    """The mean colour of each image in [-1, 1]: float64 (N, C)."""
    return torch.cat([chunk.double().mean(dim=(2, 3)) for chunk in chunks(images, d)])


def chunks(images: Tensor, d: Degradation) -> Iterator[Tensor]:
    """The images in [-1, 1], float32, a thousand at a time. ValueError where they are not those of `d`."""
    check_images_of("training images", images, d.image_shape)
    return (to_range(chunk) for chunk in torch.split(images, _CHUNK))

"""The base class of all priors, and its configuration."""

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
"""What a prior learned from the training images: named tensors, as in safetensors. Empty if it learns nothing."""

_BREAK = draws.stream("prior/symmetry breaking")
_CHUNK = 1024


class PriorConfig(Config):
    """The configuration keys that every prior has.

    Attributes:
        kind: The name under which the prior is registered.
        noise_scale: The standard deviation, in [-1, 1] units, of Gaussian noise that is added once to x_T. If x_T is
            flat, the noise breaks the symmetry between pixels. Without it, generated images hardly differ (5.2: 0.002
            lowers FID by half).
    """

    kind: str
    noise_scale: float = Field(default=0.0, ge=0)


class Start(NamedTuple):
    """The start of sampling.

    Attributes:
        x_T: float32 (B, C, H, W).
        draw: The draw that belongs to x_T. None if D is deterministic.
    """

    x_T: Tensor  # noqa: N815
    draw: Draw | None


class Prior(ABC):
    """A distribution of x_T for a degradation.

        prior = build_prior({"kind": "gmm", "components": 1}, d)
        state = prior.fit(train_images, seed=0)            # once. A state is a few numbers.
        x_T, draw = prior.start(seeds, state)
        images = sample(restorer, d, x_T, sampler, draw=draw, seeds=seeds)

    A subclass implements `_start`, and also `fit` if it learns from images. The start of an image depends only on its
    own seed, so any batch size leads to the same images.
    """

    config_type: ClassVar[type[PriorConfig]]
    takes_images: ClassVar[bool] = False
    """True if `start` degrades images that the caller passes in."""

    def __init__(self, config: PriorConfig, d: Degradation) -> None:
        self.config, self.d = config, d

    @property
    def learns(self) -> bool:
        """True if `start` needs the result of `fit`."""
        return False

    def fit(self, images: Tensor, seed: int = 0) -> State:
        """Learn from the training images what `start` needs. The same images and seed always lead to the same state.

        Args:
            images: uint8 or floating (N, C, H, W), on the CPU.
            seed: For a fit that starts at random.

        Returns:
            float64 tensors by name.
        """
        return {}

    def start(self, seeds: Tensor, state: State | None = None, images: Tensor | None = None) -> Start:
        """Draw x_T for each seed.

        Args:
            seeds: int64 (B,). The result is on their device.
            state: The result of `fit`. None if this prior learns nothing.
            images: The clean images (B, C, H, W) to degrade, uint8 or in [-1, 1]. Only the prior `data` takes them.

        Raises:
            ValueError: If the state or the images are missing, or if images are not needed.
        """
        if self.learns and not state:
            raise ValueError(
                f"prior.kind = {self.config.kind!r}: learns from images, so start needs the state from fit"
            )
        if self.takes_images != (images is not None):
            needs = "degrades images, so start needs them" if self.takes_images else "takes no images"
            raise ValueError(f"images: the prior {self.config.kind!r} {needs}")
        moved = {name: value.to(seeds.device, torch.float32) for name, value in (state or {}).items()}
        x_T, draw = self._start(seeds, moved, images)
        if self.config.noise_scale:
            x_T = x_T + self.config.noise_scale * draws.normal(seeds, _BREAK, self.d.image_shape)
        return Start(x_T, draw)

    @abstractmethod
    def _start(self, seeds: Tensor, state: State, images: Tensor | None) -> tuple[Tensor, Draw | None]:
        """Return x_T before its symmetry is broken, and the draw. `state` is float32 on the device of the seeds."""

    def _flat(self, color: Tensor) -> Tensor:
        """Return flat images of the given colours (B, C)."""
        return color.to(torch.float32)[:, :, None, None].expand(-1, *self.d.image_shape).contiguous()


def channel_means(images: Tensor, d: Degradation) -> Tensor:
    """Return the mean colour of each image in [-1, 1]: float64 (N, C)."""
    return torch.cat([chunk.double().mean(dim=(2, 3)) for chunk in chunks(images, d)])


def chunks(images: Tensor, d: Degradation) -> Iterator[Tensor]:
    """Yield the images in [-1, 1], as float32, about a thousand at a time.

    Raises:
        ValueError: If the images do not have the image shape of `d`.
    """
    check_images_of("training images", images, d.image_shape)
    return (to_range(chunk) for chunk in torch.split(images, _CHUNK))

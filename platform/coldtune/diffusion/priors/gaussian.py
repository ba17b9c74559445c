"""A prior of a Gaussian over small images, for degradations that end in a few blocks (the paper's 5.3)."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from torch import Tensor

from coldtune.diffusion import draws
from coldtune.diffusion.degradations.base import Degradation, Draw
from coldtune.diffusion.degradations.downsample import Downsample
from coldtune.diffusion.priors.base import Prior, PriorConfig, State, chunks

_PIXELS = draws.stream("prior/gaussian/pixels")


class GaussianPriorConfig(PriorConfig):
    """The configuration of a Gaussian over small images. The degradation decides their size: 2 x 2 in the paper."""

    kind: Literal["gaussian"] = "gaussian"


class GaussianPrior(Prior):
    """A prior whose x_T is made of blocks. Their values come from a Gaussian fitted to D(x, T) of the training images.

    With C channels of s x s blocks, the Gaussian has C s^2 dimensions and needs many more images than that. The values
    are not clamped to [-1, 1].
    """

    config_type: ClassVar[type[PriorConfig]] = GaussianPriorConfig

    def __init__(self, config: PriorConfig, d: Degradation) -> None:
        super().__init__(config, d)
        if not isinstance(d, Downsample):
            raise ValueError(f"prior.kind = 'gaussian': models the end of downsample, not of {d.kind}")
        self.small = (d.image_shape[0], *d.low_resolution(d.steps))

    @property
    def learns(self) -> bool:
        """True: the mean and the covariance come from images."""
        return True

    def fit(self, images: Tensor, seed: int = 0) -> State:
        """Fit the Gaussian to the blocks of D(x, T).

        Returns:
            `mean` (k,) and `factor` (k, k) with k = C s^2. The factor times its transpose is the covariance, with N - 1
            in the denominator.
        """
        rows, columns = (n // size for n, size in zip(self.d.image_shape[1:], self.small[1:], strict=True))
        degraded = (self.d.exact(chunk.double(), self.d.steps) for chunk in chunks(images, self.d))
        values = torch.cat([x[:, :, ::rows, ::columns].flatten(1) for x in degraded])
        if len(values) < 2:
            raise ValueError("prior.kind = 'gaussian': needs at least 2 training images")
        # Cholesky would fail here: the covariance is singular if some pixels never change or if images are few.
        eigenvalues, vectors = torch.linalg.eigh(torch.cov(values.T).reshape(values.shape[1], -1))
        return {"mean": values.mean(dim=0), "factor": (vectors * eigenvalues.clamp(min=0).sqrt()).contiguous()}

    def _start(self, seeds: Tensor, state: State, images: Tensor | None) -> tuple[Tensor, Draw | None]:
        normal = draws.normal(seeds, _PIXELS, (math.prod(self.small),))
        values = state["mean"] + normal @ state["factor"].T
        small = values.reshape(-1, *self.small)
        rows, columns = (n // size for n, size in zip(self.d.image_shape[1:], self.small[1:], strict=True))
        return small.repeat_interleave(rows, dim=2).repeat_interleave(columns, dim=3), None

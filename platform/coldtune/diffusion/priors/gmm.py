"""A prior of Gaussian mixtures over mean colours, for degradations that end in one colour (the paper's 5.2)."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from coldtune.diffusion import draws
from coldtune.diffusion.degradations.base import Degradation, Draw
from coldtune.diffusion.priors.base import Prior, PriorConfig, State, channel_means

_COMPONENT, _COLOR = draws.stream("prior/gmm/component"), draws.stream("prior/gmm/color")


class GmmPriorConfig(PriorConfig):
    """The configuration of a mixture of Gaussians over mean colours.

    Attributes:
        components: The number of Gaussians. The paper's 1 is a single Gaussian. More components follow the colours of a
            dataset more closely.
    """

    kind: Literal["gmm"] = "gmm"
    components: int = Field(default=1, ge=1, le=10_000)
    noise_scale: float = Field(default=0.002, ge=0)


class GmmPrior(Prior):
    """A prior whose x_T is flat, with a colour from a Gaussian mixture.

    The mixture is fitted to the channel means of the training images. That is the law of D(x, T) if D ends at the
    channel means: a blur with circular padding and a leftover of about 0, or a blur with collapse_final. Colours are
    not clamped to [-1, 1].
    """

    config_type: ClassVar[type[PriorConfig]] = GmmPriorConfig
    config: GmmPriorConfig

    def __init__(self, config: GmmPriorConfig, d: Degradation) -> None:
        super().__init__(config, d)
        if d.random:
            raise ValueError(
                f"prior.kind = 'gmm': models images that end at their own mean colour, but this {d.kind} is random"
            )

    @property
    def learns(self) -> bool:
        """True: the mixture comes from images."""
        return True

    def fit(self, images: Tensor, seed: int = 0) -> State:
        """Fit the mixture by expectation maximisation.

        It is scikit-learn's, with full covariances, a tolerance of 1e-3, and the best of 3 starts.

        Returns:
            `weights` (k,), `means` (k, C) and `factors` (k, C, C). The factors are lower triangular roots of the
            covariances.
        """
        from sklearn.mixture import GaussianMixture  # takes a second to import

        means = channel_means(images, self.d)
        if len(means) < max(2, self.config.components):
            raise ValueError(
                f"prior.components = {self.config.components}: needs at least as many training images, and at least 2, "
                f"not {len(means)}"
            )
        mixture = GaussianMixture(self.config.components, n_init=3, random_state=seed).fit(means.numpy())
        return {
            "weights": torch.from_numpy(mixture.weights_),
            "means": torch.from_numpy(mixture.means_),
            "factors": torch.linalg.cholesky(torch.from_numpy(mixture.covariances_)).contiguous(),
        }

    def _start(self, seeds: Tensor, state: State, images: Tensor | None) -> tuple[Tensor, Draw | None]:
        edges = state["weights"].cumsum(0)[:-1]
        component = torch.bucketize(draws.uniform(seeds, _COMPONENT), edges, right=True)
        normal = draws.normal(seeds, _COLOR, self.d.image_shape[:1])
        color = state["means"][component] + (state["factors"][component] @ normal[:, :, None])[:, :, 0]
        return self._flat(color), None

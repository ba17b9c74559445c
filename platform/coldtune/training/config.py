"""The configuration of a training (`training.*`)."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, field_validator

from coldtune.config import Config, Neutral, identity

MOST_STEPS = 1_000_000_000
"""The largest number of steps, or of steps between two events, that a training may have."""


def _read_off(value: Any) -> Any:
    """Return "off" for false, because YAML reads the word as false."""
    return "off" if value is False else value


class TrainingConfig(Config):
    """The optimisation of the restorer: the paper's section 3.1 with Adam and an averaged model (its appendix A).

    There are two kinds of fields. Most of them shape the trajectory: after a change it is another training, and
    `trajectory()` identifies it. `steps` and the bookkeeping do not. The first 1,000 steps of a training of 5,000 are
    the training of 1,000 steps, whatever is reported, validated or saved on the way.

    Upper bounds are far above anything that could be meant. They find a typing error before anything is spent.
    """

    steps: int = Field(default=2000, ge=1, le=MOST_STEPS)
    """Optimiser steps. They are the only measure of length; the clock never ends a training. The paper takes 60,000
    to 700,000."""
    batch_size: int = Field(default=64, ge=1, le=1_000_000)
    """Images per micro-step, over all workers together. Each worker takes its share of them."""
    accumulate: int = Field(default=1, ge=1, le=1_000_000)
    """Micro-steps whose gradients are averaged for one optimiser step: `batch_size * accumulate` images per step."""
    lr: float = Field(default=1e-3, gt=0, le=1e30)
    """Adam's step size. It is constant, because a schedule would tie the trajectory to its length. The paper: 2e-5."""
    loss: Literal["l1", "l2"] = "l1"
    """Mean absolute (paper) or squared error of R(D(x, t), t) against x, over pixels in [-1, 1]."""
    clip_norm: float | None = Field(default=None, gt=0)
    """Gradients with a larger 2-norm are scaled down to this norm. None, as in the paper: never."""
    ema_decay: float = Field(default=0.995, ge=0, lt=1)
    """Weight of the old average at each update of the averaged model, with which sampling and validation work."""
    ema_every: int = Field(default=1, ge=1, le=MOST_STEPS)
    """Optimiser steps between updates of the average. The paper: 10, so its memory is about 2,000 steps."""
    ema_warmup: bool = True
    """True: the decay is min(ema_decay, (1 + k) / (10 + k)) at the k-th update, k = 0, 1, .. The average of a short
    training then does not contain its random start. False, as in the paper: the decay is `ema_decay` from the first
    update. That suits trainings that are many times longer than ema_every / (1 - ema_decay) steps."""
    ema_stds: Annotated[
        Annotated[tuple[Annotated[float, Field(gt=0, lt=12**-0.5)], ...], Field(max_length=8)], Neutral(())
    ] = ()
    """The lengths of further averages, which are kept so that `sampler.ema_std` can have any length after the training
    (Karras et al., 2312.02696). A length is the standard deviation of the averaged steps, relative to the training up
    to then. The paper keeps [0.05, 0.1]. Each average costs the memory of the weights, and its update at each step.
    (): none. It needs `snapshot_every`, unless only these lengths are sampled."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Fixes the initial weights, the order of the images, and every t, augmentation and degradation draw."""
    dtype: Literal["float32", "tf32", "bfloat16"] = "float32"
    """Arithmetic of convolutions and matrix products: IEEE single, TF32 (10-bit mantissa, NVIDIA only), or autocast to
    bfloat16. Weights, the average and Adam's moments are always float32."""
    compile: Annotated[Literal["off", "auto"], BeforeValidator(_read_off), Neutral("off")] = "off"
    """off: every operation is launched by itself. auto, on a GPU: the training step and the restorer that samples are
    compiled and captured as CUDA graphs, with channels last in memory, and the restorer samples with the arithmetic of
    `dtype`. That takes up to minutes at the first network of a size. It is far faster, above all for small networks,
    and differs in the last bits. Where it is not possible, a warning says why, and the training is the same as with
    off."""

    validate_every: int = Field(default=500, ge=0, le=MOST_STEPS)
    """Steps between validations. 0: never. With any other value, the last step is validated too."""
    validate_images: int = Field(default=256, ge=1, le=MOST_STEPS)
    """Size of the fixed validation grid. It is smaller if the split has fewer images."""
    report_every: int = Field(default=50, ge=1, le=MOST_STEPS)
    """Steps between reports. A report is the mean since the last report. Larger values may notice a divergence
    later."""
    checkpoint_every: int = Field(default=500, ge=0, le=MOST_STEPS)
    """Steps between checkpoints, hence the most work that an interruption can lose. 0: only at the end. The last step
    always gets a checkpoint."""

    snapshot_every: Annotated[int, Field(ge=0, le=MOST_STEPS), Neutral(0)] = 0
    """Steps between checkpoints that stay, for `sampler.at_step`, `guidance_step` and `ema_std`. 0: only the last step
    and the rungs stay. A checkpoint has four times the size of the weights, and once more for each of `ema_stds`."""

    # What `compile` led to shapes the trajectory too. The keys of stages contain that instead (`stages.compute`).
    BOOKKEEPING: ClassVar[frozenset[str]] = frozenset(
        {"steps", "compile", "validate_every", "validate_images", "report_every", "checkpoint_every", "snapshot_every"}
    )

    @field_validator("ema_stds")
    @classmethod
    def _ascending(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if any(later <= earlier for earlier, later in pairwise(value)):
            raise ValueError("must be ascending, each length once")
        return value

    def snapshots(self, step: int) -> tuple[int, ...]:
        """Return the steps up to `step` whose checkpoints stay by `snapshot_every`, ascending."""
        return tuple(range(self.snapshot_every, step + 1, self.snapshot_every)) if self.snapshot_every else ()

    def trajectory(self) -> dict[str, Any]:
        """Return the fields that shape the trajectory. Trainings that agree in them share their checkpoints."""
        return {name: value for name, value in identity(self).items() if name not in self.BOOKKEEPING}

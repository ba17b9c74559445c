"""How a restorer is trained."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from coldtune.config import Config


class TrainingConfig(Config):
    """Optimisation of the restorer: the paper's section 3.1 with Adam and an averaged model (its appendix A).

    Two kinds of fields. Most shape the trajectory: change one and it is another training (`trajectory()` is what
    identifies it). `steps` and the bookkeeping do not: the first 1,000 steps of a training of 5,000 are the training
    of 1,000 steps, whatever is reported, validated or saved on the way.
    """

    steps: int = Field(default=2000, ge=1)
    """Optimiser steps: the only length there is, never the clock. The paper: 60,000 to 700,000."""
    batch_size: int = Field(default=64, ge=1)
    """Images per micro-step over all workers together; a worker takes its share of them."""
    accumulate: int = Field(default=1, ge=1)
    """Micro-steps whose gradients are averaged for one optimiser step: `batch_size * accumulate` images per step."""
    lr: float = Field(default=1e-3, gt=0)
    """Adam's step size, constant (a schedule would tie the trajectory to its length). The paper: 2e-5."""
    loss: Literal["l1", "l2"] = "l1"
    """Mean absolute (paper) or squared error of R(D(x, t), t) against x, over pixels in [-1, 1]."""
    clip_norm: float | None = Field(default=None, gt=0)
    """Gradients with a larger 2-norm are scaled down to it; None, as the paper: never."""
    ema_decay: float = Field(default=0.995, ge=0, lt=1)
    """Weight of the old average at each update of the averaged model, which is the one that samples and validates."""
    ema_every: int = Field(default=1, ge=1)
    """Optimiser steps between updates of the average. The paper: 10, so its memory is about 2,000 steps."""
    ema_warmup: bool = True
    """Decay min(ema_decay, (1 + k) / (10 + k)) at the k-th update, k = 0, 1, ..: a short training then does not
    average in its random start. False, as the paper: `ema_decay` from the first update, for trainings that are
    many times longer than ema_every / (1 - ema_decay) steps."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Fixes the initial weights, the order of the images, and every t, augmentation and degradation draw."""
    dtype: Literal["float32", "tf32", "bfloat16"] = "float32"
    """Arithmetic of convolutions and matmuls: IEEE single, TF32 (10-bit mantissa, NVIDIA only), or autocast to
    bfloat16. Weights, the average and Adam's moments are float32 in all of them."""

    validate_every: int = Field(default=500, ge=0)
    """Steps between validations; 0: never. With any other value, the last step is validated too."""
    validate_images: int = Field(default=256, ge=1)
    """Size of the fixed validation grid (less where the split has fewer images)."""
    report_every: int = Field(default=50, ge=1)
    """Steps between reports, each the mean since the last; also how late a diverged loss may be noticed."""
    checkpoint_every: int = Field(default=500, ge=0)
    """Steps between checkpoints: what an interruption can cost. 0: only at the end. The last step always has one."""

    BOOKKEEPING: ClassVar[frozenset[str]] = frozenset(
        {"steps", "validate_every", "validate_images", "report_every", "checkpoint_every"}
    )

    def trajectory(self) -> dict[str, Any]:
        """Everything that shapes the trajectory except its length: trainings equal in it share their checkpoints."""
        return self.model_dump(mode="json", exclude=set(self.BOOKKEEPING))

"""The restorer R(x_t, t): a U-Net that estimates x_0."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from coldtune.config import Config, parse
from coldtune.diffusion.degradations.base import check_image_shape

Size = Literal["micro", "tiny", "small", "base", "large"]


class RestorerConfig(Config):
    """The size of the network, and how it is told the severity.

    Attributes:
        size: A key of `SIZES`, which lists the architectures.
        index: The severity that the network is told: the paper's t, 1..T, or t-1 as in the authors' code.
    """

    size: Size = "small"
    index: Literal["t", "t-1"] = "t"


@dataclass(frozen=True)
class Architecture:
    """The architecture of a U-Net. A network with attention at any level also attends in its middle block.

    Attributes:
        channels: The channels of each level, from full resolution down.
        layers: The residual blocks of each level.
        attention: The levels with self-attention.
        groups: The groups of the group normalisation.
    """

    channels: tuple[int, ...]
    layers: int
    attention: tuple[int, ...] = ()
    groups: int = 32

    @property
    def divisor(self) -> int:
        """The number by which the image's sides must be divisible: every level but the last halves them."""
        return 1 << (len(self.channels) - 1)


SIZES: dict[Size, Architecture] = {
    "micro": Architecture((8, 16, 32), layers=1, groups=8),
    "tiny": Architecture((16, 32, 64), layers=1, groups=8),
    "small": Architecture((64, 128, 128), layers=1, attention=(2,)),
    "base": Architecture((128, 256, 256, 256), layers=2, attention=(1,)),
    "large": Architecture((64, 128, 256, 512), layers=2, attention=(3,)),
}


_LEAST_SIDE = 8  # of images that datasets are prepared with


class Restorer(nn.Module):
    """The network R(x, t): x (B, C, H, W) and the paper's t, 1..T, int64 (B,) -> the estimate of x_0, (B, C, H, W)."""

    def __init__(self, net: nn.Module, first_index: int = 1) -> None:
        """Wrap `net`, which is told `first_index` at t = 1."""
        super().__init__()
        self.net, self.first_index = net, first_index

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Return the estimate of x_0."""
        estimate: Tensor = self.net(x, t + (self.first_index - 1), return_dict=False)[0]
        return estimate


def check_restorer(config: RestorerConfig, image_shape: Sequence[int]) -> None:
    """Check that a restorer fits images, without building it.

    Args:
        image_shape: (C, H, W).

    Raises:
        ValueError: If the image's sides are not divisible as the levels of this size need. The message lists the sizes
            that fit, and the nearest sides that fit this size.
    """
    _, height, width = check_image_shape(image_shape)
    divisor = SIZES[config.size].divisor
    if height % divisor == width % divisor == 0:
        return
    fitting = [name for name, other in SIZES.items() if height % other.divisor == width % other.divisor == 0]
    rounded = {side for n in (height, width) for side in (n // divisor * divisor, -(-n // divisor) * divisor)}
    nearest = " or ".join(str(side) for side in sorted(rounded) if side >= _LEAST_SIDE)
    sizes = f"Allowed here: {', '.join(fitting)}. Or choose" if fitting else "No size fits them. Choose"
    raise ValueError(
        f"restorer.size = {config.size!r}: needs image sides divisible by {divisor}, not {height}x{width}. "
        f"{sizes} sides such as {nearest} (data.image_size)"
    )


def build_restorer(config: RestorerConfig | Mapping[str, Any], image_shape: Sequence[int], steps: int) -> Restorer:
    """Build an untrained restorer, with weights from torch's global generator.

    The network is diffusers' UNet2DModel. It receives t (or t-1) as it is, through a sinusoidal embedding. So t means
    something else to networks that were trained with different T.

    Args:
        config: A `RestorerConfig` or a mapping of its keys.
        image_shape: (C, H, W).
        steps: T, which is kept in the network's configuration.

    Raises:
        ValueError: If the image's sides are not divisible as the levels of this size need. The message lists the sizes
            that fit.
    """
    config = parse(RestorerConfig, config, where="restorer")
    check_restorer(config, image_shape)
    channels, size = image_shape[0], SIZES[config.size]
    from diffusers import UNet2DModel  # takes seconds to import

    down, up = _blocks(size)
    return Restorer(
        UNet2DModel(
            in_channels=channels,
            out_channels=channels,
            block_out_channels=size.channels,
            layers_per_block=size.layers,
            down_block_types=down,
            up_block_types=up,
            add_attention=bool(size.attention),
            norm_num_groups=size.groups,
            num_train_timesteps=steps,
        ),
        first_index=1 if config.index == "t" else 0,
    )


def _blocks(size: Architecture) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return diffusers' names of the blocks on the way down and on the way up."""
    attends = [level in size.attention for level in range(len(size.channels))]
    down = tuple("AttnDownBlock2D" if attention else "DownBlock2D" for attention in attends)
    up = tuple("AttnUpBlock2D" if attention else "UpBlock2D" for attention in reversed(attends))
    return down, up

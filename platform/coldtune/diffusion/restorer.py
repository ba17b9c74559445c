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
    """The size of the network: `SIZES` says what each is, `build_restorer` what it costs.

    index: what the network is told of the severity: the paper's t, 1..T, or t-1 as in the authors' code.
    """

    size: Size = "small"
    index: Literal["t", "t-1"] = "t"


@dataclass(frozen=True)
class Architecture:
    """Channels of each level, from full resolution down; residual blocks a level; levels with self-attention.

    A network with attention at any level also attends in its middle block.
    """

    channels: tuple[int, ...]
    layers: int
    attention: tuple[int, ...] = ()
    groups: int = 32

    @property
    def divisor(self) -> int:
        """What the image's sides must be divisible by: every level but the last halves them."""
        return 1 << (len(self.channels) - 1)


SIZES: dict[Size, Architecture] = {
    "micro": Architecture((8, 16, 32), layers=1, groups=8),
    "tiny": Architecture((16, 32, 64), layers=1, groups=8),
    "small": Architecture((64, 128, 128), layers=1, attention=(2,)),
    "base": Architecture((128, 256, 256, 256), layers=2, attention=(1,)),
    "large": Architecture((64, 128, 256, 512), layers=2, attention=(3,)),
}


class Restorer(nn.Module):
    """R(x, t): x (B, C, H, W) and the paper's severity t, 1..T, int64 (B,) -> the estimate of x_0, (B, C, H, W)."""

    def __init__(self, net: nn.Module, first_index: int = 1) -> None:
        """`first_index`: what `net` is told at t = 1."""
        super().__init__()
        self.net, self.first_index = net, first_index

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """The estimate of x_0."""
        estimate: Tensor = self.net(x, t + (self.first_index - 1), return_dict=False)[0]
        return estimate


def build_restorer(config: RestorerConfig | Mapping[str, Any], image_shape: Sequence[int], steps: int) -> Restorer:
    """An untrained restorer for images of `image_shape` (C, H, W), weights from torch's global generator.

    The network is diffusers' UNet2DModel; steps is T, kept in its configuration. It receives the paper's t (1..T), or
    t-1, as it is, through a sinusoidal embedding: a network trained at one T means something else by t than one at
    another T.
    ValueError where the image's sides are not divisible by what the size's levels need.
    """
    config = parse(RestorerConfig, config, where="restorer")
    channels, height, width = check_image_shape(image_shape)
    size = SIZES[config.size]
    fitting = [name for name, other in SIZES.items() if height % other.divisor == width % other.divisor == 0]
    if config.size not in fitting:
        raise ValueError(
            f"restorer.size = {config.size!r}: needs image sides divisible by {size.divisor}, not {height}x{width}; "
            f"allowed here: {', '.join(fitting) or 'none'}"
        )
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
    """diffusers' names of the blocks on the way down and on the way up."""
    attends = [level in size.attention for level in range(len(size.channels))]
    down = tuple("AttnDownBlock2D" if attention else "DownBlock2D" for attention in attends)
    up = tuple("AttnUpBlock2D" if attention else "UpBlock2D" for attention in reversed(attends))
    return down, up

"""Augmentation of training images by random crops and mirroring, decided for each image by its seed."""

from __future__ import annotations

import torch
from torch.nn.functional import pad

from coldtune.data.config import DataConfig
from coldtune.diffusion import draws

_CROP = draws.stream("data/augment/crop")
_FLIP = draws.stream("data/augment/flip")


def augment(images: torch.Tensor, config: DataConfig, seeds: torch.Tensor) -> torch.Tensor:
    """Crop and mirror training images at random, as `config` says.

    With `crop_pad` p, each image is framed with p black pixels, and the H x W window at an offset uniform in {0..2p}^2
    is taken. With `flip`, each image is mirrored left to right with probability 1/2. The result depends on an image
    and its seed alone, so it is the same in any batch, in any order and on any device.

    Args:
        images: uint8 (B, C, H, W).
        seeds: int64 (B,), on the device of the images.

    Returns:
        Images of the same shape, type and device. If both settings are off, `images` itself.
    """
    if not (config.crop_pad or config.flip):
        return images
    count, _, height, width = images.shape
    rows = torch.arange(height, device=images.device).expand(count, -1)
    columns = torch.arange(width, device=images.device).expand(count, -1)
    if config.flip:
        mirrored = draws.integers(seeds, _FLIP, 0, 2).bool()
        columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    if config.crop_pad:
        offsets = draws.integers(seeds, _CROP, 0, 2 * config.crop_pad + 1, (2,))
        rows, columns = rows + offsets[:, :1], columns + offsets[:, 1:]
        images = pad(images, (config.crop_pad,) * 4)
    batch = torch.arange(count, device=images.device)[:, None, None]
    return images.movedim(1, -1)[batch, rows[:, :, None], columns[:, None, :]].movedim(-1, 1).contiguous()

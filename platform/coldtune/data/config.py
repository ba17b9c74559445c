"""Configuration of the data of a study."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from coldtune.config import Config, Neutral
from coldtune.data.registry import names
from coldtune.data.resize import Resize


def _known(name: str) -> str:
    if name not in names():
        raise ValueError(f"unknown dataset; allowed: {', '.join(names())}")
    return name


class DataConfig(Config):
    """The dataset of a study, its image size, and the augmentation in training.

    `name`, `image_size` and `resize` determine the prepared files. `crop_pad` and `flip` act on training batches only.
    Changing them therefore prepares nothing again and does not affect validation and test images.
    """

    name: Annotated[str, AfterValidator(_known)] = "digits"
    image_size: int = Field(default=16, ge=8, le=256)
    """Height and width in pixels after resizing. Costs grow with its square. Some networks need a multiple of 8."""
    resize: Resize = "bilinear"
    """bilinear and bicubic antialias when they shrink an image. nearest keeps the grey levels, but aliases."""
    crop_pad: int = Field(default=0, ge=0)
    """Width in pixels of a black frame, out of which training cuts a random window of the image's size.

    0 turns cropping off. 4 is usual at 32 pixels.
    """
    flip: bool = False
    """Whether training mirrors each image left to right with probability 1/2.

    Leave it off for digits and letters, because mirroring changes their meaning.
    """
    path: Annotated[str | None, Neutral(None)] = Field(default=None, min_length=1)
    """The folder of the published files or of your own images, relative to the current folder, as `--data-dir`.

    `--data-dir` takes precedence. The path only says where the images are. So it tells no studies apart.
    """

    @field_validator("crop_pad")
    @classmethod
    def _crop_inside(cls, value: int, info: ValidationInfo) -> int:
        size = info.data.get("image_size")
        if size is not None and value >= size:
            raise ValueError(f"must be below image_size ({size})")
        return value

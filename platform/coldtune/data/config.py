"""Configuration of the data of a study."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from coldtune.config import Config
from coldtune.data.registry import names
from coldtune.data.resize import Resize


def _known(name: str) -> str:
    if name not in names():
        raise ValueError(f"unknown dataset; allowed: {', '.join(names())}")
    return name


class DataConfig(Config):
    """Which images, at which size, and how training varies them.

    `name`, `image_size` and `resize` decide the prepared files; `crop_pad` and `flip` act on training batches only, so
    changing them prepares nothing anew and leaves validation and test images alone.
    """

    name: Annotated[str, AfterValidator(_known)] = "digits"
    image_size: int = Field(default=16, ge=8, le=256)
    """Height and width in pixels after resizing. Costs grow with its square; some networks need a multiple of 8."""
    resize: Resize = "bilinear"
    """bilinear and bicubic antialias when they shrink; nearest keeps grey levels and aliases."""
    crop_pad: int = Field(default=0, ge=0)
    """Training takes a random window of the image framed by so many black pixels; 0: none. 4 is usual at 32 pixels."""
    flip: bool = False
    """Training mirrors every other image left to right, on average. Changes what digits and letters mean."""

    @field_validator("crop_pad")
    @classmethod
    def _crop_inside(cls, value: int, info: ValidationInfo) -> int:
        size = info.data.get("image_size")
        if size is not None and value >= size:
            raise ValueError(f"must be below image_size ({size})")
        return value

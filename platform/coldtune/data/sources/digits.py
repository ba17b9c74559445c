"""The handwritten digits that come with scikit-learn, 1,797 real images of 8 x 8 pixels, without a download."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from coldtune.data.progress import Bars
from coldtune.data.source import Raw, Source


class Digits(Source):
    """The images of `sklearn.datasets.load_digits`, the test part of UCI's handwritten digits."""

    name = "digits"
    channels = 1
    num_classes = 10
    needs = "no files, because scikit-learn contains it"

    def locate(self, data_dir: Path) -> list[Path]:
        """Ignore the folder with a warning, because the images come with scikit-learn."""
        warnings.warn(f"--data-dir = {str(data_dir)!r} is ignored: digits come with scikit-learn", stacklevel=2)
        return []

    def download(self, folder: Path, bars: Bars) -> list[Path]:
        """Download nothing, because the images come with scikit-learn."""
        return []

    def files(self, data_dir: Path | None, downloads: Path, bars: Bars) -> list[Path]:
        """Return no files, and warn if the user named a folder."""
        return self.locate(data_dir) if data_dir is not None else []

    def read(self, files: Sequence[Path], bars: Bars) -> dict[str, Raw]:
        """Read all images as a single part, with the grey levels scaled from 0..16 to 0..255."""
        from sklearn.datasets import load_digits

        pixels, labels = load_digits(return_X_y=True)
        images = np.rint(pixels.reshape(-1, 1, 8, 8) * (255 / 16)).astype(np.uint8)
        return {"all": Raw(images, labels.astype(np.int64))}

"""The handwritten digits that scikit-learn ships: 1,797 real images of 8 x 8 pixels, no download."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from coldtune.data.progress import Bars
from coldtune.data.source import Raw, Source


class Digits(Source):
    """`sklearn.datasets.load_digits` (UCI optical recognition of handwritten digits, test part), grey levels 0..16."""

    name = "digits"
    channels = 1
    num_classes = 10
    needs = "no files: scikit-learn ships it"

    def locate(self, data_dir: Path) -> list[Path]:
        """Nothing to locate: a data directory is ignored, with a warning."""
        warnings.warn(f"--data-dir = {str(data_dir)!r} is ignored: digits come with scikit-learn", stacklevel=2)
        return []

    def download(self, folder: Path, bars: Bars) -> list[Path]:
        """Nothing to download."""
        return []

    def files(self, data_dir: Path | None, downloads: Path, bars: Bars) -> list[Path]:
        """No files in any case."""
        return self.locate(data_dir) if data_dir is not None else []

    def read(self, files: Sequence[Path], bars: Bars) -> dict[str, Raw]:
        """All images as one part, grey levels scaled from 0..16 to 0..255."""
        from sklearn.datasets import load_digits

        pixels, labels = load_digits(return_X_y=True)
        images = np.rint(pixels.reshape(-1, 1, 8, 8) * (255 / 16)).astype(np.uint8)
        return {"all": Raw(images, labels.astype(np.int64))}

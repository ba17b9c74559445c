"""AFHQ, faces of animals, from the folders or the archive that its authors publish."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from coldtune.data.encoded import Encoded
from coldtune.data.file_collections import FileCollection
from coldtune.data.progress import Bars
from coldtune.data.sources.image_files import ImageFiles, find_files

CLASSES = ("cat", "dog", "wild")
_FOLDERS = ("", "afhq", "afhq_v2", "afhqv2")
_ARCHIVES = ("afhq.zip", "afhq_v2.zip", "afhqv2.zip")
_PARTS = ("train", "val", "test")
_NAME = re.compile(r"(?:.*/)?(train|val|test)/([^/]+)/([^/]+)")


class Afhq(ImageFiles):
    """About 15,000 RGB photographs of 512 x 512 pixels in 3 classes (Choi et al. 2020, version 2 is cleaned up).

    The labels are 0 cat, 1 dog, 2 wild. The test set is the published part beside train, which is val in version 1 and
    test in version 2, and the validation set is taken out of train. If there are both val and test, all three parts are
    kept as published. The two versions contain different images, so their fingerprints differ.
    """

    name = "afhq"
    num_classes = len(CLASSES)
    published = "get the images by the download script of https://github.com/clovaai/stargan-v2"
    needs = (
        "train/ and val/ or test/, each with cat/, dog/ and wild/ full of .jpg or .png files, there or in afhq/ or "
        "afhq_v2/, or afhq.zip or afhq_v2.zip with them"
    )

    def locate(self, data_dir: Path) -> list[Path]:
        """Find a folder that has train/, otherwise an archive."""
        folders = [data_dir / name for name in _FOLDERS if (data_dir / name / "train").is_dir()]
        archives = [data_dir / name for name in _ARCHIVES if (data_dir / name).is_file()]
        return [*folders, *archives][:1]

    def list_files(self, path: Path) -> FileCollection:
        """List the files under train/, val/ and test/ of a folder, or all files of an archive."""
        return find_files(path, [part for part in _PARTS if (path / part).is_dir()])

    def read(self, files: Sequence[Path], bars: Bars) -> Mapping[str, Encoded]:
        """Read the published parts. Raises ValueError if a part or class is missing, or is none of AFHQ's."""
        images = self.images(files[0])
        parts: dict[str, dict[str, int]] = {}
        for name in images.names:
            match = _NAME.fullmatch(name)
            if match is None or match[2] not in CLASSES:
                raise ValueError(f"{images.describe(name)}: afhq has train, val or test / {', '.join(CLASSES)} / image")
            parts.setdefault(match[1], {})[name] = CLASSES.index(match[2])
        _check(files[0], parts)
        both = "val" in parts and "test" in parts
        splits = {"train": "train", "val": "validation" if both else "test", "test": "test"}
        return {
            splits[part]: Encoded(images, tuple(labels), np.array([*labels.values()]), self.channels, bars)
            for part, labels in parts.items()
        }


def _check(path: Path, parts: Mapping[str, Mapping[str, int]]) -> None:
    missing = [
        f"{part}/{name}"
        for part, labels in parts.items()
        for label, name in enumerate(CLASSES)
        if label not in labels.values()
    ]
    if "train" not in parts:
        missing.append("train")
    if not {"val", "test"} & set(parts):
        missing.append("val or test")
    if missing:
        raise ValueError(f"{path} lacks a part of AFHQ: {', '.join(missing)}")

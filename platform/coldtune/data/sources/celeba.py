"""CelebA, faces of celebrities, from its published archive or folder of aligned images, and CelebA-HQ from a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from coldtune.data.decode import is_image
from coldtune.data.encoded import Encoded
from coldtune.data.file_collections import FileCollection
from coldtune.data.progress import Bars
from coldtune.data.regular_files import read_file
from coldtune.data.sources.image_files import ImageFiles, find_files

_ALIGNED = "img_align_celeba"
_PARTITION = "list_eval_partition.txt"
_FOLDERS = ("", "celeba", "CelebA")
_IMAGES = tuple(f"{folder}{_ALIGNED}{rest}" for rest in (f"/{_ALIGNED}", "", ".zip") for folder in ("", "Img/"))
_HQ = ("", "celeba_hq", "CelebA-HQ-img", "CelebAMask-HQ/CelebA-HQ-img")
_LARGEST_LIST = 1 << 26  # bytes of the partition, which has 4 million
_SPLITS = {"0": "train", "1": "validation", "2": "test"}


class CelebA(ImageFiles):
    """202,599 RGB photographs of 178 x 218 pixels (Liu et al. 2015), or the 30,000 of CelebA-HQ (Karras et al. 2018).

    There are no labels, so all are 0. If list_eval_partition.txt is there, the published partition into train,
    validation and test is used. Without it, and for CelebA-HQ, the images are split 60/20/20 by their hash. The paper's
    code uses CelebA-HQ, split 90/10 in the order in which a file system lists it.
    """

    name = "celeba"
    num_classes = 1
    published = "get the aligned images and the partition of https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html"
    needs = (
        f"{_ALIGNED}/ full of .jpg files or {_ALIGNED}.zip, and {_PARTITION}, there, in celeba/, or in Img/ and Eval/ "
        "as published, or with the images of CelebA-HQ, .jpg or .png, there or in celeba_hq/"
    )

    def locate(self, data_dir: Path) -> list[Path]:
        """Find the aligned images and the partition, if there is one, otherwise a folder of images (CelebA-HQ)."""
        above = [data_dir.parent] if data_dir.name == _ALIGNED else []
        for folder in [*(data_dir / name for name in _FOLDERS), *above]:
            for images in (folder / name for name in _IMAGES):
                if images.is_file() or (images.is_dir() and any(images.iterdir())):
                    return [images, *_find_partition(folder)]
        flat = (data_dir / name for name in _HQ)
        return next(([path] for path in flat if path.is_dir() and any(is_image(p.name) for p in path.iterdir())), [])

    def list_files(self, path: Path) -> FileCollection:
        """List all files of the folder or archive. Raises ValueError if the folder has files in folders inside it."""
        files = find_files(path)
        for name in files.names if path.is_dir() else ():
            if "/" in name:
                raise ValueError(f"{files.describe(name)} is in a folder inside {path}: move it elsewhere")
        return files

    def notices(self, files: Sequence[Path]) -> list[str]:
        """Return sentences about left-out links, and about a partition that is missing."""
        missing = len(files) == 1 and files[0].stem == _ALIGNED
        partition = f"no {_PARTITION} beside {files[0]}: its images are split 60/20/20 by hash"
        return [*super().notices(files), *([partition] if missing else [])]

    def read(self, files: Sequence[Path], bars: Bars) -> Mapping[str, Encoded]:
        """Read the published parts, or all images as a single part if there is no partition.

        Raises:
            ValueError: If the partition does not list the same files as the images.
        """
        images = self.images(files[0])
        parts = {"all": list(images.names)}
        if len(files) > 1:
            parts = _split_by_partition(images, files[1])
        return {
            part: Encoded(images, names, np.zeros(len(names), np.int64), self.channels, bars)
            for part, names in parts.items()
        }


def _find_partition(folder: Path) -> list[Path]:
    return [path for path in (folder / _PARTITION, folder / "Eval" / _PARTITION) if path.is_file()][:1]


def _split_by_partition(images: FileCollection, partition: Path) -> dict[str, list[str]]:
    """Return the names of the images of each split, as the file `partition` says."""
    splits = _read_partition(partition)
    parts: dict[str, list[str]] = {split: [] for split in _SPLITS.values()}
    for name in images.names:
        split = splits.pop(name.rpartition("/")[2], None)
        if split is None:
            raise ValueError(f"{images.describe(name)} is not in {partition}, or is there twice")
        parts[split].append(name)
    if splits:
        raise ValueError(f"{images.path} lacks {len(splits):,} images of {partition}, for example {next(iter(splits))}")
    return parts


def _read_partition(path: Path) -> dict[str, str]:
    """Read {file name: split} from lines like "000001.jpg 0"."""
    splits = {}
    for number, line in enumerate(read_file(path, _LARGEST_LIST).decode(errors="replace").splitlines(), start=1):
        match line.split():
            case [name, part] if part in _SPLITS:
                splits[name] = _SPLITS[part]
            case []:
                pass
            case _:
                raise ValueError(f"{path}, line {number}: {line[:80]!r}; allowed: an image's name and 0, 1 or 2")
    return splits

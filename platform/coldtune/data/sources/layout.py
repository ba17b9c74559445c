"""The classes and splits that the folders of a user's own images express, such as `train/cats/1.png`."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_SPLITS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}
_SHARD = re.compile(rf"({'|'.join(_SPLITS)})(?:[-_.].*)?", re.IGNORECASE)


@dataclass(frozen=True)
class Layout:
    """The parts and classes of images.

    Attributes:
        parts: The names of the images of each part, sorted, with the keys that `Source.read` returns.
        classes: The names of the classes, sorted. Empty if the images have none.
        class_of: The class of each image. Empty if the images have none.
        outside: An image outside of the folders of classes, because of which there are no classes.
    """

    parts: dict[str, list[str]]
    classes: tuple[str, ...] = ()
    class_of: dict[str, str] | None = None
    outside: str | None = None

    def labels(self, part: str) -> npt.NDArray[np.int64]:
        """Return the label of each image of a part, which is the index of its class. 0 without classes."""
        if self.class_of is None:
            return np.zeros(len(self.parts[part]), np.int64)
        index = {name: number for number, name in enumerate(self.classes)}
        return np.array([index[self.class_of[name]] for name in self.parts[part]], np.int64)


def arrange(names: Sequence[str], describe: Callable[[str], str]) -> Layout:
    """Find the splits and classes in the folders of images.

    A folder around everything is overlooked. If the outermost folders are `train` and one or both of `val` and `test`
    (also `validation`, `valid`, `dev`), they are the splits. The next folder is the class, if every image is in such a
    folder and there are at least two of them.

    Args:
        names: The images' paths relative to the whole folder, with "/" between their parts.
        describe: Returns how an error message calls an image.

    Raises:
        ValueError: If there are folders of splits, and an image lies beside them or `train` is missing.
    """
    folders = _unwrap({name: tuple(name.split("/")[:-1]) for name in sorted(names)})
    split_of = _find_splits(folders, describe)
    if split_of is not None:
        folders = _unwrap({name: folder[1:] for name, folder in folders.items()})
    parts = group_splits(split_of or dict.fromkeys(folders))
    outside = next((name for name, folder in folders.items() if not folder), None)
    classes = sorted({folder[0] for folder in folders.values() if folder})
    if outside is not None or len(classes) < 2:
        return Layout(parts, outside=outside if classes else None)
    return Layout(parts, tuple(classes), {name: folder[0] for name, folder in folders.items()})


def group_splits(split_of: dict[str, str | None] | dict[str, str]) -> dict[str, list[str]]:
    """Group names by split, with the keys that `Source.read` returns. "all" has those that a hash has to split.

    Args:
        split_of: The split of each name. Either all are None, or "train" is among them.
    """
    parts: dict[str, list[str]] = {}
    for name, split in split_of.items():
        parts.setdefault(split or "all", []).append(name)
    if set(parts) < {"train", "validation", "test"}:
        parts = {"all" if part == "train" else part: names for part, names in parts.items()}
    return parts


def split_of_shard(name: str) -> str | None:
    """Return the split that a Parquet file's path names, such as `train-00000-of-00002.parquet` or `test/0.parquet`.

    The file's own name counts before its folders. None if nothing names a split.
    """
    for part in reversed(name.removesuffix(".parquet").split("/")):
        if match := _SHARD.fullmatch(part):
            return _SPLITS[match[1].lower()]
    return None


def _unwrap(folders: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """Remove the outermost folders that all images share."""
    while len({folder[:1] for folder in folders.values()}) == 1 and all(folders.values()):
        folders = {name: folder[1:] for name, folder in folders.items()}
    return folders


def _find_splits(folders: dict[str, tuple[str, ...]], describe: Callable[[str], str]) -> dict[str, str] | None:
    """Return the split of each image, or None if the outermost folders are no splits."""
    tops = {folder[0] for folder in folders.values() if folder}
    found = {_SPLITS[top.lower()] for top in tops if top.lower() in _SPLITS}
    if len(found) < 2:
        return None
    stray = next((name for name, folder in folders.items() if not folder or folder[0].lower() not in _SPLITS), None)
    shown = ", ".join(f"{top}/" for top in sorted(tops) if top.lower() in _SPLITS)
    if stray is not None:
        raise ValueError(
            f"{describe(stray)}: lies beside the folders of splits ({shown}), so its split is unknown. Move it into "
            "one of them, or elsewhere"
        )
    if "train" not in found:
        raise ValueError(
            f"{describe(next(iter(folders)))}: there are {shown} but no train/. Add it, or rename the folders"
        )
    return {name: _SPLITS[folder[0].lower()] for name, folder in folders.items()}

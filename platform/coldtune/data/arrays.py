"""Reading images from one file that contains them as one array. Pickles are never loaded, because they can run code."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

SUFFIXES = (".npz", ".npy", ".safetensors")
_KEYS = ("images", "arr_0")
_CHANNELS = (1, 3)


def read_array(path: Path, image_shape: tuple[int, int, int] | None = None) -> torch.Tensor:
    """Read the images of a .npz, .npy or .safetensors file.

    The array in the file has the shape (N, C, H, W), (N, H, W, C) or (N, H, W), with C either 1 or 3, and is uint8. A
    .npz file is searched for the array `images`, then for `arr_0`, and otherwise must contain a single array. A
    .safetensors file must contain the tensor `images`.

    Args:
        image_shape: (C, H, W). Only needed if the channels could be the first or the last axis of an image.

    Returns:
        uint8 (N, C, H, W).

    Raises:
        ValueError: If the file cannot be read, or its array has another type or shape. The message names the file.
    """
    from safetensors import SafetensorError

    read = {".npz": _npz, ".npy": _npy, ".safetensors": _safetensors}[path.suffix.lower()]
    try:
        array = read(path)
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error, SafetensorError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    if array.dtype != np.uint8:
        raise ValueError(f"{path}: images of dtype {array.dtype}, but only uint8 in 0..255 is allowed")
    if array.ndim == 3:
        array = array[:, None]
    elif array.ndim == 4 and _channels_last(path, array.shape, image_shape):
        array = array.transpose(0, 3, 1, 2)
    elif array.ndim != 4:
        raise _shape_error(path, array.shape)
    return torch.from_numpy(np.ascontiguousarray(array))


def _channels_last(path: Path, shape: tuple[int, ...], image_shape: tuple[int, int, int] | None) -> bool:
    first, last = shape[1] in _CHANNELS, shape[3] in _CHANNELS
    if first and last and image_shape is not None:
        first, last = shape[1:] == image_shape, (shape[3], *shape[1:3]) == image_shape
    if first == last:
        raise _shape_error(path, shape)
    return last


def _shape_error(path: Path, shape: tuple[int, ...]) -> ValueError:
    return ValueError(f"{path}: shape {shape}; allowed: (N, C, H, W), (N, H, W, C) or (N, H, W), with C either 1 or 3")


def _npz(path: Path) -> Any:
    with path.open("rb") as file, np.lib.npyio.NpzFile(file, allow_pickle=False) as arrays:
        names = arrays.files
        key = next((key for key in _KEYS if key in names), names[0] if len(names) == 1 else None)
        if key is None:
            raise ValueError(f"its arrays are {', '.join(names) or '(none)'}, but an array called images is needed")
        return arrays[key]


def _npy(path: Path) -> Any:
    with path.open("rb") as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def _safetensors(path: Path) -> Any:
    from safetensors import safe_open

    with safe_open(path, framework="np") as tensors:
        if "images" not in tensors.keys():  # noqa: SIM118  (not a mapping)
            raise ValueError(f"its tensors are {', '.join(tensors.keys()) or '(none)'}, but images is needed")
        return tensors.get_tensor("images")

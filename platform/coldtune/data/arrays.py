"""Reading images from one file that contains them as one array. Pickles are never loaded, because they can run code."""

from __future__ import annotations

import lzma
import math
import os
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from coldtune.data.regular_files import check_memory, open_regular

SUFFIXES = (".npz", ".npy", ".safetensors")
_KEYS = ("images", "arr_0")
_CHANNELS = (1, 3)
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
# Real images are packed to a hundredth at best. A file that is packed better, and large, is made to fill the memory.
_MOST_RATIO, _MOST_UNCHECKED = 100, 1 << 26


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
    except _DtypeError as error:
        raise ValueError(f"{path}: {error}") from None
    except (
        OSError, EOFError, RuntimeError, NotImplementedError, MemoryError, ValueError, OverflowError, SyntaxError,
        lzma.LZMAError, zipfile.BadZipFile, zlib.error, SafetensorError,
    ) as error:  # fmt: skip
        # numpy's messages are sometimes several lines long
        raise ValueError(f"{path} cannot be read: {str(error).strip().partition(chr(10))[0]}") from error
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
    with open_regular(path) as file, zipfile.ZipFile(file) as archive:
        members = {item.filename.removesuffix(".npy"): item for item in archive.infolist()}
        if len(members) < len(archive.infolist()):
            raise ValueError("it contains an array twice")
        names = list(members)
        key = next((key for key in _KEYS if key in names), names[0] if len(names) == 1 else None)
        if key is None:
            raise ValueError(
                f"its arrays are {', '.join(names[:10]) or '(none)'}, but an array called images is needed"
            )
        item = members[key]
        if item.file_size > _MOST_UNCHECKED and item.file_size > _MOST_RATIO * item.compress_size:
            raise ValueError(f"it unpacks to more than {_MOST_RATIO} times its size: {item.file_size:,} bytes")
        with archive.open(item) as stream:
            return _read_npy(stream, item.file_size)


def _npy(path: Path) -> Any:
    with open_regular(path) as file:
        return _read_npy(file, os.fstat(file.fileno()).st_size)


def _read_npy(file: Any, size: int) -> Any:
    """Read the array of an open .npy file of `size` bytes. Nothing is allocated before the header is checked."""
    version = np.lib.format.read_magic(file)  # ValueError if these are not the first bytes of a .npy file
    if version not in _HEADERS:
        raise ValueError(f"it has version {version} of the format, but only 1.0 and 2.0 are read")
    shape, fortran_order, dtype = _HEADERS[version](file)
    _check_dtype(dtype)
    promised, left = math.prod(shape), size - file.tell()
    if min(shape, default=1) < 0 or promised != left:
        raise ValueError(f"its header promises {promised:,} bytes, but {left:,} follow")
    check_memory("it", promised)
    content = np.empty(promised, np.uint8)
    done = 0
    while done < promised and (count := file.readinto(content[done:].data)):
        done += count
    if done < promised:
        raise ValueError(f"it ends after {done:,} of {promised:,} bytes")
    return content.reshape(shape, order="F" if fortran_order else "C")


def _safetensors(path: Path) -> Any:
    from safetensors import safe_open

    open_regular(path).close()
    with safe_open(path, framework="np") as tensors:
        if "images" not in tensors.keys():  # noqa: SIM118  (not a mapping)
            raise ValueError(f"its tensors are {', '.join(tensors.keys()) or '(none)'}, but images is needed")
        check_memory("it", math.prod(tensors.get_slice("images").get_shape()))
        array = tensors.get_tensor("images")
    _check_dtype(array.dtype)
    return array


class _DtypeError(Exception):
    pass


def _check_dtype(dtype: Any) -> None:
    if dtype != np.uint8:
        raise _DtypeError(f"images of dtype {dtype}, but only uint8 in 0..255 is allowed")

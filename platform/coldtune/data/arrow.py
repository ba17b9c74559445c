"""A split as an Arrow IPC file, which is written once and then memory-mapped into torch without a copy.

The file contains exactly one record batch, because all pixels of the split must lie side by side to become one tensor.
Its columns are `image`, a fixed-shape uint8 tensor, and `label`, int64. Any Arrow reader opens it.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from coldtune.data.errors import DamagedDataError
from coldtune.data.regular_files import open_regular
from coldtune.files import open_replacement

_KEY = b"coldtune"
_MAGIC = b"ARROW1\0\0"  # then the same messages follow as in a stream, and at the end an index of them


@dataclass(frozen=True)
class MappedSplit:
    """A split that is mapped into memory.

    Attributes:
        images: uint8 (N, C, H, W).
        labels: int64 (N,).
        state: The state of the file when it was mapped (`file_state`).
    """

    images: torch.Tensor
    labels: torch.Tensor
    state: tuple[int, ...]


def file_state(status: os.stat_result) -> tuple[int, ...]:
    """Return what changes if a file is replaced or written to: its device, inode, size and times."""
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def write(path: Path, images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64], tag: str) -> None:
    """Write a split to `path` and force it to the disk.

    Args:
        images: uint8 (N, C, H, W).
        labels: int64 (N,).
        tag: Identifies the dataset and split that the file belongs to. `read` compares it.
    """
    shape = images.shape[1:]
    # pyarrow's from_numpy_ndarray will not do: it infers an order of the axes from their strides, and the stride of an
    # axis of length 1 means nothing.
    storage = pa.FixedSizeListArray.from_arrays(pa.array(images.reshape(-1)), int(np.prod(shape)))
    column = pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(pa.uint8(), shape), storage)
    schema = _schema(shape, tag)
    batch = pa.record_batch([column, pa.array(labels)], schema=schema)
    with (
        open_replacement(path, durable=True) as file,
        # Without allow_64bit, a column may not have more than 2^31 values, and a split of photographs has more.
        pa.ipc.new_file(file, schema, options=pa.ipc.IpcWriteOptions(allow_64bit=True)) as writer,
    ):
        writer.write_batch(batch)


def read(path: Path, tag: str, image_shape: Sequence[int]) -> MappedSplit:
    """Map a split into memory without copying it. Its header is checked, but no pixel is read.

    The tensors lie on the pages of the file, which all processes of a machine share. The mapping is copy-on-write, so
    a write to a tensor changes only this process's copy and never the file.

    Args:
        tag: The tag that the file was written with.
        image_shape: The shape (C, H, W) of each image.

    Raises:
        DamagedDataError: If the file is torn, or its header is not that of such a split.
    """
    try:
        with open_regular(path) as file:
            state = file_state(os.fstat(file.fileno()))
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        buffer = pa.py_buffer(mapped)
        batch = _read_batch(buffer, _schema(image_shape, tag))
        offsets = [column.buffers()[-1].address - buffer.address for column in batch.columns]
        shape = (batch.num_rows, *image_shape)
        images = torch.frombuffer(mapped, dtype=torch.uint8, count=int(np.prod(shape)), offset=offsets[0]).view(shape)
        labels = torch.frombuffer(mapped, dtype=torch.int64, count=batch.num_rows, offset=offsets[1])
    except (OSError, pa.ArrowException, LookupError, AttributeError, TypeError, ValueError) as error:
        # pyarrow's messages are sometimes several lines long.
        reason = str(error).strip().partition("\n")[0]
        raise DamagedDataError(f"{path} is not a complete Arrow file of a prepared dataset: {reason}") from error
    return MappedSplit(images, labels, state)


def _schema(image_shape: Sequence[int], tag: str) -> Any:
    tensor = pa.fixed_shape_tensor(pa.uint8(), tuple(image_shape))
    return pa.schema([("image", tensor), ("label", pa.int64())], metadata={_KEY: tag.encode()})


def _read_batch(buffer: Any, schema: Any) -> Any:
    """Return the only record batch of the file. Raises ValueError if its header is not that of `schema`."""
    if bytes(buffer[: len(_MAGIC)]) != _MAGIC:
        raise ValueError("its first bytes are not those of an Arrow file")
    with pa.ipc.open_file(buffer) as reader, pa.ipc.open_stream(buffer[len(_MAGIC) :]) as stream:
        for found in (reader.schema, stream.schema):  # a reader of the file uses the second copy, at its end
            if not found.equals(schema, check_metadata=True):
                raise ValueError("its columns or its tag are those of another dataset")
        if reader.num_record_batches != 1:
            raise ValueError(f"it has {reader.num_record_batches} batches instead of one")
        batch = reader.get_batch(0)
    batch.validate()
    if batch.num_rows < 1 or any(column.null_count or column.offset for column in batch.columns):
        raise ValueError("it has no images, or some of them are missing")
    return batch

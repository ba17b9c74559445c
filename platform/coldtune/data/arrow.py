"""A split as an Arrow IPC file, which is written once and then memory-mapped into torch without a copy.

The file contains exactly one record batch, because all pixels of the split must lie side by side to become one tensor.
Its columns are `image`, a fixed-shape uint8 tensor, and `label`, int64. Any Arrow reader opens it.
"""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from coldtune.files import open_replacement

_KEY = b"coldtune"


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
    schema = pa.schema([("image", column.type), ("label", pa.int64())], metadata={_KEY: tag.encode()})
    batch = pa.record_batch([column, pa.array(labels)], schema=schema)
    with (
        open_replacement(path, durable=True) as file,
        # Without allow_64bit, a column may not have more than 2^31 values, and a split of photographs has more.
        pa.ipc.new_file(file, schema, options=pa.ipc.IpcWriteOptions(allow_64bit=True)) as writer,
    ):
        writer.write_batch(batch)


def read(path: Path, tag: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Map a split into memory without copying it.

    The tensors lie on the pages of the file, which all processes of a machine share. The mapping is copy-on-write, so
    a write to a tensor changes only this process's copy and never the file.

    Args:
        tag: The tag that the file was written with.

    Returns:
        Images uint8 (N, C, H, W) and labels int64 (N,).

    Raises:
        ValueError: If the file is torn or has another tag.
    """
    try:
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        buffer = pa.py_buffer(mapped)
        with pa.ipc.open_file(buffer) as reader:
            if (reader.schema.metadata or {}).get(_KEY) != tag.encode():
                raise ValueError(f"{path} belongs to another dataset")
            batch = reader.get_batch(0)
            tensor_type = batch.schema.field("image").type
            offsets = [column.buffers()[-1].address - buffer.address for column in batch.columns]
        shape = (batch.num_rows, *tensor_type.shape)
        images = torch.frombuffer(mapped, dtype=torch.uint8, count=int(np.prod(shape)), offset=offsets[0]).view(shape)
        labels = torch.frombuffer(mapped, dtype=torch.int64, count=batch.num_rows, offset=offsets[1])
    except (OSError, pa.ArrowException, LookupError, AttributeError) as error:
        raise ValueError(f"{path} is not a complete Arrow file of a prepared dataset: {error}") from error
    return images, labels

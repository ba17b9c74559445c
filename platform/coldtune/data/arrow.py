"""One split as one Arrow IPC file: written once, then memory-mapped into torch without a copy.

The file holds exactly one record batch (columns `image`, a fixed-shape uint8 tensor, and `label`, int64), because only
then do all pixels of the split lie side by side, as one tensor needs them. Any Arrow reader opens it.
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
    """Write `images` (N, C, H, W) and `labels` (N,) to `path`, flushed to the disk; `tag` says whose file this is."""
    shape = images.shape[1:]
    # Not from_numpy_ndarray: it reads a permutation of the axes out of the meaningless stride of an axis of length 1.
    storage = pa.FixedSizeListArray.from_arrays(pa.array(images.reshape(-1)), int(np.prod(shape)))
    column = pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(pa.uint8(), shape), storage)
    schema = pa.schema([("image", column.type), ("label", pa.int64())], metadata={_KEY: tag.encode()})
    batch = pa.record_batch([column, pa.array(labels)], schema=schema)
    with (
        open_replacement(path, durable=True) as file,
        # Else no column may have more than 2^31 values: photographs have more.
        pa.ipc.new_file(file, schema, options=pa.ipc.IpcWriteOptions(allow_64bit=True)) as writer,
    ):
        writer.write_batch(batch)


def read(path: Path, tag: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Images uint8 (N, C, H, W) and labels int64 (N,) of `path`, on the pages of the file itself.

    All processes of a machine share these pages. The mapping is copy-on-write: a write to the tensor stays in the
    process that made it and never reaches the file. Raises ValueError where the file is torn or its tag is another.
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
            places = [column.buffers()[-1].address - buffer.address for column in batch.columns]
        shape = (batch.num_rows, *tensor_type.shape)
        images = torch.frombuffer(mapped, dtype=torch.uint8, count=int(np.prod(shape)), offset=places[0]).view(shape)
        labels = torch.frombuffer(mapped, dtype=torch.int64, count=batch.num_rows, offset=places[1])
    except (OSError, pa.ArrowException, LookupError, AttributeError) as error:
        raise ValueError(f"{path} is not a whole Arrow file of a prepared dataset: {error}") from error
    return images, labels

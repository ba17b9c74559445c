"""Files of tensors that everyone may read who may read the folder."""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors into a safetensors file, with the permissions of any new file.

    Args:
        tensors: Tensors on any device, by name.
        path: A file in a folder of the caller's own. The file is not replaced atomically.
    """
    from safetensors.torch import save_file  # with torch, which takes seconds to import

    with usual_permissions(path):
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path)


@contextmanager
def usual_permissions(path: Path) -> Iterator[None]:
    """Give the file that the block writes at `path` the permissions of any new file.

    safetensors replaces a file by one that only its owner can read, whatever the umask is. Other users of a store, or
    of an exported network, could then not read it. Reading the umask would change it for all threads for a moment.
    """
    path.touch()
    usual = stat.S_IMODE(path.stat().st_mode)
    yield
    path.chmod(usual)

"""Tensor files can be read by everyone who may read other new files of the same process."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from coldtune.tensor_files import save_tensors

SOURCE = Path(__file__).parents[1] / "platform"


@pytest.fixture(params=[0o022, 0o027, 0o077])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_save_tensors_follows_the_umask(tmp_path: Path, umask: int) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    save_tensors({"turned": base.T, "trained": base.clone().requires_grad_()}, tmp_path / "a.safetensors")
    assert stat.S_IMODE((tmp_path / "a.safetensors").stat().st_mode) == 0o666 & ~umask
    read = load_file(tmp_path / "a.safetensors")
    assert torch.equal(read["turned"], base.T)
    assert torch.equal(read["trained"], base)
    assert os.listdir(tmp_path) == ["a.safetensors"]


def test_save_file_of_safetensors_is_called_in_one_place_only() -> None:
    callers = [path for path in SOURCE.rglob("*.py") if "save_file(" in path.read_text(encoding="utf-8")]
    assert [path.name for path in callers] == ["tensor_files.py"]

"""A study's folder: start.json and who may read it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from coldtune.studies.spec.build import build_spec
from coldtune.studies.spec.folder import START_FILE, StudyFolder

SPEC = build_spec("folder", Path(__file__).parents[3] / "search_spaces" / "blur.yaml")


@pytest.fixture(autouse=True)
def umask_that_lets_others_read() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.mark.parametrize(
    ("storage", "closed"),
    [(None, False), ("postgresql://db/studies", False), ("postgresql://me:secret@db/studies", True)],
)
def test_study_folder_start_json_with_password_is_private(tmp_path: Path, storage: str | None, closed: bool) -> None:
    folder = StudyFolder(tmp_path, "study")
    start = {"trials": 3, "fingerprint": "0", "storage": storage, "command": f"job --storage {storage}"}
    for _ in range(2):  # the second time, the file exists
        folder.save(SPEC, start)
        assert folder.start() | start == folder.start()
        mode = stat.S_IMODE((folder.path / START_FILE).stat().st_mode)
        assert (mode & (stat.S_IRWXG | stat.S_IRWXO) == 0) == closed
    folder.save(SPEC, {**start, "storage": "postgresql://me:secret@db/studies"})
    assert not stat.S_IMODE((folder.path / START_FILE).stat().st_mode) & (stat.S_IRWXG | stat.S_IRWXO)

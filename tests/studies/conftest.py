"""The blur study with random search, as a spec and a space. Some test files define their own instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from coldtune.config import parse
from coldtune.studies.space.space import Space
from coldtune.studies.spec.build import build_spec
from coldtune.studies.spec.study import StudySpec


@pytest.fixture(scope="module")
def spec(root: Path) -> StudySpec:
    made = build_spec("sweep_blur", root / "search_spaces" / "blur.yaml")
    return made.model_copy(update={"search": parse(type(made.search), {"algorithm": "random"})})


@pytest.fixture(scope="module")
def space(spec: StudySpec) -> Space:
    return Space(spec.space, spec.base, (1, 16, 16))

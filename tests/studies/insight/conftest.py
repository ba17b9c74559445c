"""A space, and a forest that is small enough for tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from made_up_facts import SPACE

from coldtune.studies.insight import fanova, ped_anova
from coldtune.studies.space.space import Space
from coldtune.studies.spec.build import build_spec


@pytest.fixture(autouse=True)
def _few_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name, value in (
        (fanova, "_DRAWS", 6),
        (fanova, "_TREES", 5),
        (fanova, "_FOREST", 60),
        (ped_anova, "_PERMUTATIONS", 40),
    ):
        monkeypatch.setattr(module, name, value)


@pytest.fixture
def make_space(tmp_path: Path) -> Callable[..., Space]:
    def made(text: str = SPACE) -> Space:
        (tmp_path / "space.yaml").write_text(text)
        spec = build_spec("job", tmp_path / "space.yaml")
        return Space(spec.space, spec.base, (1, 16, 16))

    return made

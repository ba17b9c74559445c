"""The line of a study's opening that says what it asks."""

from __future__ import annotations

from pathlib import Path

from coldtune.studies.progress.opening import describe_asked
from coldtune.studies.space.space import Space
from coldtune.studies.spec.build import build_spec

SPACE = """
base: digits-quick
vary:
  degradation.sigma.schedule: {choices: [constant, linear, exponential]}
  degradation.sigma.rate: {choices: [0.05], when: {degradation.sigma.schedule: [linear, exponential]}}
"""


def test_key_that_is_set_to_a_single_value_does_not_count_as_varying(tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(SPACE)
    spec = build_spec("job", tmp_path / "space.yaml")
    space = Space(spec.space, spec.base, (1, 16, 16))
    assert describe_asked(spec, space, 3, 1).startswith("3 trials over schedule, around digits-quick (")
    assert space.config.varied == ["degradation.sigma.schedule"]


def test_variants_of_a_search_are_counted_beside_its_keys(tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(f"{SPACE}variants: {{base: {{}}, fast: {{training.lr: 0.002}}}}\n")
    spec = build_spec("job", tmp_path / "space.yaml")
    space = Space(spec.space, spec.base, (1, 16, 16))
    assert describe_asked(spec, space, 3, 1).startswith("3 trials over 2 variants, schedule, around digits-quick (")

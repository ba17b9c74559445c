"""The number of replicates: how it is written, and that it tells no studies apart."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from coldtune.config import parse
from coldtune.studies.space.validate import build_space, check_seeds
from coldtune.studies.spec.build import build_spec
from coldtune.studies.spec.study import StudySpec

SPACE = "base: digits-quick\nvary: {degradation.steps: {low: 10, high: 40}}\n"


def spec_of(folder: Path, more: str = "", space: str = SPACE) -> StudySpec:
    (folder / "space.yaml").write_text(space + more)
    return build_spec("job", folder / "space.yaml")


def test_spec_without_replicates_has_one(tmp_path: Path) -> None:
    assert spec_of(tmp_path).replicates == 1
    assert spec_of(tmp_path, "replicates: 5\n").replicates == 5


def test_spec_with_replicates_keeps_name_and_is_the_same_study(tmp_path: Path) -> None:
    plain, replicated = spec_of(tmp_path), spec_of(tmp_path, "replicates: 5\n")
    assert plain.name == replicated.name
    assert plain.differences(replicated) == []


def test_spec_of_an_older_version_has_one_replicate(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, "replicates: 3\n")
    spec.save(tmp_path)
    assert StudySpec.load(tmp_path) == spec
    stored = yaml.safe_load((tmp_path / "spec.yaml").read_text())
    del stored["replicates"]
    assert parse(StudySpec, stored) == spec.model_copy(update={"replicates": 1})


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("0", "replicates = 0: must be a whole number from 1 to 1,000"),
        ("true", "replicates = True"),
        ("2.5", "replicates = 2.5"),
        ("many", "replicates = 'many'"),
        ("[1, 2]", r"replicates = \[1, 2\]"),
        ("1001", "replicates = 1001"),
        ("null", "replicates = None"),
        ("{first: 2, most: 10}", "cannot race settings. Write a number, for example `replicates: 10`"),
        ("{first: 1, most: 10}", r"replicates\.first = 1"),
        ("{first: 5, most: 3}", "first = 5 must not be above most = 3"),
        ("{first: 2, last: 3}", r"replicates\.last = 3: unknown key; allowed: first, most"),
        ("{first: 2}", r"replicates\.most: required"),
    ],
)
def test_replicates_wrong_value_is_named(written: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=said) as error:
        spec_of(tmp_path, f"replicates: {written}\n")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ("vary: {training.seed: {low: 0, high: 9}}", r"vary\.training\.seed: with 3 replicates"),
        ("variants: {a: {}, b: {training.seed: 1}}", r"training\.seed differs \(0 in 'a', 1 in 'b'\)"),
    ],
)
def test_replicates_with_varied_seed_are_refused(space: str, said: str, tmp_path: Path) -> None:
    spec = spec_of(tmp_path, space=f"base: digits-quick\n{space}\n")
    with pytest.raises(ValueError, match=said):
        check_seeds(build_space(spec.space, spec.base, (1, 16, 16)), 3)


def test_replicates_of_variants_with_one_seed_are_accepted(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, space="base: digits-quick\nvariants: {a: {training.seed: 4}, b: {training.seed: 4}}\n")
    check_seeds(build_space(spec.space, spec.base, (1, 16, 16)), 1000)

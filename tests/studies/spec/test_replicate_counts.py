"""The number of replicates: how it is written, and that it tells no studies apart."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from coldtune.config import parse
from coldtune.studies.space.validate import build_space, check_seeds
from coldtune.studies.spec.build import build_spec
from coldtune.studies.spec.folder import StudyFolder
from coldtune.studies.spec.replicates import Racing, parse_replicates, read_replicates
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


def test_spec_of_a_race_has_the_name_of_a_fixed_number_but_is_another_study(tmp_path: Path) -> None:
    fixed, race = spec_of(tmp_path, "replicates: 5\n"), spec_of(tmp_path, "replicates: {first: 2, most: 10}\n")
    assert race.race == Racing(first=2, most=10)
    assert race.replicates == 10
    assert race.name == fixed.name, "so neither can run beside the other unnoticed"
    assert race.differences(fixed) != []
    race.save(tmp_path)
    assert StudySpec.load(tmp_path) == race


@pytest.mark.parametrize(
    ("here", "there", "said"),
    [
        (
            "{first: 2, most: 10}",
            "5",
            r"began with a fixed number of trainings \(replicates: 5\).*cannot become a race",
        ),
        ("{first: 2, most: 10}", "1", r"replicates: 1\), so it cannot become a race"),
        ("7", "{first: 2, most: 10}", r"a fixed number of trainings: study s began as a race .*never changes"),
        ("{first: 2, most: 12}", "{first: 2, most: 10}", r"most: 12\}: study s began as a race .*most: 10\}"),
        ("{first: 3, most: 10}", "{first: 2, most: 10}", r"first: 3, .*first: 2, "),
    ],
)
def test_study_never_becomes_another_race(here: str, there: str, said: str, tmp_path: Path) -> None:
    began, now = spec_of(tmp_path, f"replicates: {there}\n"), spec_of(tmp_path, f"replicates: {here}\n")
    folder = StudyFolder(tmp_path / "home", "s")
    folder.save(began, {"trials": 2, "fingerprint": "ab"})
    with pytest.raises(ValueError, match=said) as error:
        folder.check_same_study(now, "ab")
    assert "\n" not in str(error.value)
    assert "--study NAME" in str(error.value)
    folder.check_same_study(began, "ab")


@pytest.mark.parametrize(
    ("written", "read"), [("5", 5), ("2..10", Racing(first=2, most=10)), (" 3..3 ", Racing(first=3, most=3))]
)
def test_replicates_flag_is_a_number_or_a_race(written: str, read: object) -> None:
    assert parse_replicates("--replicates", written) == read


def test_race_is_written_as_the_flag_reads_it() -> None:
    race = Racing(first=2, most=10)
    assert parse_replicates("--replicates", str(race)) == race
    assert read_replicates(yaml.safe_load(race.written)) == race

"""What earlier trainings of a home say about the difference that a design detects."""

from __future__ import annotations

import re
import statistics
from pathlib import Path

import pytest

from coldtune import presets
from coldtune.config import plain
from coldtune.data import Dataset, prepared
from coldtune.metrics import Protocol, build_extractor, resolve
from coldtune.stages.trial import parse_trial
from coldtune.studies.designs.pilot import Pilot, _pool, describe_detectable, find_pilot
from coldtune.studies.space.validate import build_space
from coldtune.studies.spec.build import build_spec
from coldtune.studies.spec.folder import StudyFolder
from coldtune.studies.spec.replicates import Racing
from coldtune.studies.spec.study import StudySpec
from coldtune.studies.storage.backends import open_storage
from coldtune.studies.storage.outcome import StoredStage, TrialOutcome
from coldtune.studies.trials.ledger import open_ledger
from coldtune.verdicts.planning import detectable_difference, detectable_effect

GUIDE = Path(__file__).resolve().parents[3] / "docs" / "ablations.md"
LOSS = "base: digits-quick\ndesign: {kind: one_factor}\nfactors: {training.loss: [l1, l2]}\n"
EMA = "base: digits-quick\ndesign: {kind: one_factor}\nfactors: {training.ema_decay: [0.9, 0.99]}\n"
VALUES = [1.0, 1.5, 1.25, 4.0, 3.0, 3.5]


class Home:
    """A home in which the digits are prepared, and a study of three trainings of two arms was told."""

    def __init__(self, path: Path, digits_home: Path) -> None:
        self.path = path / "home"
        self.path.mkdir()
        (self.path / "data").symlink_to(digits_home / "data")
        self.dataset = Dataset.open(prepared(self.path, "digits")[0])
        self.protocol = self.protocol_of(self.spec(LOSS))
        self.tell(self.spec(LOSS))

    def spec(self, space: str) -> StudySpec:
        (self.path / "space.yaml").write_text(space)
        return build_spec("design", self.path / "space.yaml")

    def protocol_of(self, spec: StudySpec) -> Protocol:
        trial = parse_trial(spec.base)
        return resolve(trial.protocol, build_extractor(trial.protocol.extractor), self.dataset, trial.task)

    def tell(self, spec: StudySpec) -> None:
        folder = StudyFolder(self.path, "earlier")
        folder.save(spec, {"trials": 2, "replicates": 3, "fingerprint": self.dataset.fingerprint, "command": "x"})
        space = build_space(spec.space, spec.base, presets.image_shape(spec.base))
        made = open_ledger("earlier", spec, space, open_storage(folder.path), replicates=3)
        while made.wanted(2) > 0:
            asked = made.ask(2)
            assert asked is not None
            training = asked.config.training
            value = VALUES[3 * (training.loss == "l2") + training.seed]
            stage = StoredStage("train", str(training.trajectory()), False, 1.0)
            made.complete(asked.number, TrialOutcome({"fid": value}, plain(self.protocol), stages=(stage,)))

    def pilot(self, space: str, protocol: Protocol | None = None) -> Pilot | None:
        spec = self.spec(space)
        built = build_space(spec.space, spec.base, presets.image_shape(spec.base))
        return find_pilot(self.path, spec, built, protocol or self.protocol)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, digits_home: Path) -> Home:
    return Home(tmp_path_factory.mktemp("pilot"), digits_home)


def test_pilot_pools_the_trainings_of_each_setting(home):
    pooled = (statistics.variance(VALUES[:3]) + statistics.variance(VALUES[3:])) / 2
    found = home.pilot(LOSS)
    assert found == Pilot(pytest.approx(pooled**0.5), 6, same=True)


def test_pilot_takes_the_trainings_of_an_arm_only_if_there_are_any(home):
    """The base of the other design was trained three times, and its levels never."""
    found = home.pilot(EMA)
    assert found == Pilot(pytest.approx(statistics.stdev(VALUES[:3])), 3, same=True)
    other = home.pilot(EMA.replace("digits-quick", "quick/digits-blur"))
    assert other is not None
    assert not other.same


def test_pilot_counts_a_network_of_several_settings_once(home):
    samplers = LOSS.replace("training.loss: [l1, l2]", "sampler.clamp: [false, true]")
    spec = home.spec(samplers)
    shared = {"a": 1.0, "b": 2.0, "c": 3.0}
    assert _pool([shared, {name: 2 * value for name, value in shared.items()}], same=True) == Pilot(
        pytest.approx(2.5**0.5), 3, same=True
    )
    assert "difference of 440 between" in describe_detectable(spec, Pilot(200.0, 3, same=True), 5)[0]


def test_pilot_under_another_protocol_is_not_found(home):
    assert home.pilot(LOSS, home.protocol.model_copy(update={"seed": 7})) is None


def test_detectable_difference_is_smaller_with_more_trainings(home):
    spec, pilot = home.spec(LOSS), Pilot(0.2, 12, same=True)
    sizes = [float(describe_detectable(spec, pilot, k)[0].split("difference of ")[1].split()[0]) for k in (3, 5, 10)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[1] == pytest.approx(2.2 * 0.2, rel=0.05)


def test_detectable_difference_without_a_pilot_says_how_to_get_one(home):
    (said,) = describe_detectable(home.spec(LOSS), None, 5)
    assert "--replicates 5" in said
    (said,) = describe_detectable(home.spec(LOSS), Pilot(0.2, 12, same=True), 2)
    assert "too few" in said


def test_detectable_difference_of_a_factorial_says_that_of_an_effect(home):
    spec = home.spec("base: digits-quick\ndesign: {kind: factorial}\nfactors: {training.loss: [l1, l2], "
                     "sampler.clamp: [false, true]}\n")  # fmt: skip
    said = describe_detectable(spec, Pilot(0.2, 12, same=True), 5)
    sizes = {group: detectable_effect(0.2, 5, weights, comparisons=3) for group, weights in (
        ("the effect of a level", [0.5, 0.5, -0.5, -0.5]), ("an interaction", [1, -1, -1, 1]))}  # fmt: skip
    assert (
        said[1]
        == "all arms together detect "
        + " and ".join(f"{group} from {size:.2g} on" for group, size in sizes.items())
        + ", adjusted for 3 effects"
    )
    race = spec.with_replicates(Racing(first=2, most=10))
    assert describe_detectable(race, Pilot(0.2, 12, same=True), 10)[1:] == [
        "a race detects a little less, because it looks after each training"
    ]


def test_detectable_difference_of_the_family_best_counts_all_pairs(home):
    levels = (
        "base: digits-quick\ndesign: {kind: one_factor}\nfactors: {training.ema_decay: [0.995, 0.9, 0.99, 0.999]}\n"
    )
    both, best = home.spec(levels), home.spec(levels + "comparisons: {family: [best]}\n")
    (said,), (of_best,) = (describe_detectable(spec, Pilot(1.0, 12, same=True), 5) for spec in (both, best))
    assert f"{detectable_difference(1.0, 5, comparisons=3):.2g} between an arm and the reference" in said
    assert f"{detectable_difference(1.0, 5, comparisons=6):.2g} between the best arm and another" in of_best


def test_guide_shows_the_differences_that_are_detected():
    rows = re.findall(r"^\| (\d+) \| ([\d.]+) sd \| ([\d.]+) sd \| ([\d.]+) sd \|$", GUIDE.read_text(), re.MULTILINE)
    assert [int(row[0]) for row in rows] == [3, 5, 8, 10, 20]
    for replicates, *shown in rows:
        sizes = [detectable_difference(1.0, int(replicates), comparisons=arms) for arms in (1, 2, 6)]
        assert [float(size) for size in shown] == pytest.approx(sizes, abs=0.051)

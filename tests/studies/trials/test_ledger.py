"""The ledger: asking, telling and counting trials, and resuming interrupted trials."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import servers
from coldtune.config import parse
from coldtune.stages.trial import parse_trial
from coldtune.studies.space.space import Space
from coldtune.studies.spec.build import build_spec
from coldtune.studies.spec.study import StudySpec
from coldtune.studies.storage.backends import open_storage
from coldtune.studies.storage.outcome import TrialOutcome
from coldtune.studies.storage.record import attributes_of_promoted
from coldtune.studies.trials.ledger import Ledger, open_ledger


@pytest.fixture
def spec(root: Path) -> StudySpec:
    return build_spec("sweep_blur", root / "search_spaces" / "blur.yaml")


@dataclass(frozen=True)
class Place:
    """The storage of a study: a journal in a folder, or a database."""

    folder: Path
    url: str | None = None


@pytest.fixture(params=["journal", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    on_server = request.param == "postgres"
    return Place(tmp_path, request.getfixturevalue("postgres").database() if on_server else None)


def ledger(spec: StudySpec, place: Place | Path) -> Ledger:
    place = place if isinstance(place, Place) else Place(place)
    return open_ledger("study", spec, Space(spec.space, spec.base, (1, 16, 16)), open_storage(place.folder, place.url))


def outcome(fid: float) -> TrialOutcome:
    return TrialOutcome({"fid": fid, "ssim": 0.5})


def test_ledger_first_trial_is_the_base(spec: StudySpec, tmp_path: Path) -> None:
    asked = ledger(spec, tmp_path).ask()
    assert asked.number == 0
    assert asked.config == parse_trial(spec.base)
    assert not asked.again


def test_ledger_told_trials_are_seen_by_the_next_process(spec: StudySpec, place: Place) -> None:
    first = ledger(spec, place)
    for fid in (3.0, 1.0, 2.0):
        first.complete(first.ask().number, outcome(fid))
    first.fail(first.ask().number, "RuntimeError: boom")
    again = ledger(spec, place)
    assert again.finished() == 4
    assert again.best().number == 1
    assert again.best().user_attrs["metrics"] == {"fid": 1.0, "ssim": 0.5}
    assert again.trials()[3].user_attrs["reason"] == "RuntimeError: boom"
    assert again.wanted(6) == 2


def test_ledger_settled_search_ends_with_the_trials_that_were_asked(spec: StudySpec, place: Place) -> None:
    reasons: list[str] = []
    made = ledger(spec, place)
    made.stop_when(lambda: reasons[0] if reasons else None)
    asked = [made.ask(9) for _ in range(4)]
    made.complete(0, outcome(2.0))
    made.complete(1, outcome(1.0))
    assert made.wanted(9) == 5
    reasons.append("it gains nothing")
    assert (made.wanted(9), made.is_done(9), made.settled_early(9)) == (0, False, "it gains nothing")
    assert made.settled_early(4) is None  # it has all its trials
    made.complete(2, outcome(3.0))
    again = ledger(spec, place)  # the driver died while trial 3 ran
    again.stop_when(lambda: "it gains nothing")
    assert again.wanted(9) == 1
    assert again.ask(9).number == asked[3].number
    again.complete(3, outcome(4.0))
    assert (again.wanted(9), again.is_done(9)) == (0, True)
    again.study.enqueue_trial(again.trials()[2].params, user_attrs=attributes_of_promoted(2))
    assert (again.wanted(9), again.is_done(9)) == (1, False)  # a person asked for it
    assert again.ask(9).promoted_from == 2


def test_ledger_search_that_gains_again_goes_on(spec: StudySpec, tmp_path: Path) -> None:
    made, reasons = ledger(spec, tmp_path), ["it gains nothing"]
    made.complete(made.ask(9).number, outcome(2.0))  # the base, which is asked in any case
    made.stop_when(lambda: reasons[0] if reasons else None)
    assert (made.wanted(9), made.is_done(9)) == (0, True)
    reasons.clear()
    assert (made.wanted(9), made.is_done(9)) == (8, False)


def test_ledger_asks_interrupted_trials_first_under_their_numbers(spec: StudySpec, place: Place) -> None:
    first = ledger(spec, place)
    asked = [first.ask() for _ in range(3)]
    first.complete(1, outcome(1.0))
    again = ledger(spec, place)
    assert again.interrupted() == [0, 2]
    taken = [again.ask() for _ in range(3)]
    assert [(a.number, a.again) for a in taken] == [(0, True), (2, True), (3, False)]
    assert taken[0].config == asked[0].config
    assert taken[1].config == asked[2].config
    assert again.wanted(5) == 1


@pytest.mark.parametrize("fid", [math.nan, math.inf])
def test_ledger_objective_not_finite_is_a_failure(spec: StudySpec, place: Place, fid: float) -> None:
    made = ledger(spec, place)
    number = made.ask().number
    assert made.complete(number, outcome(fid)) == f"fid is {fid}"
    assert made.best() is None
    assert made.finished() == 1
    assert made.trials()[0].user_attrs["reason"] == f"fid is {fid}"


def test_ledger_best_of_a_maximised_objective_is_the_largest(root: Path, place: Place, spec: StudySpec) -> None:
    objective = {"metric": "ssim", "direction": "maximize"}
    made = ledger(spec.model_copy(update={"objective": parse(type(spec.objective), objective)}), place)
    for ssim in (0.2, 0.9, 0.5):
        made.complete(made.ask().number, TrialOutcome({"ssim": ssim}))
    assert made.best().number == 1


def test_ledger_in_a_database_counts_finished_trials(spec: StudySpec, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/optuna.db"
    space = Space(spec.space, spec.base, (1, 16, 16))
    first = open_ledger("study", spec, space, open_storage(tmp_path, url))
    first.complete(first.ask().number, outcome(1.0))
    assert open_ledger("study", spec, space, open_storage(tmp_path, url)).finished() == 1


@pytest.mark.parametrize("algorithm", ["tpe", "random"])
def test_ledger_asks_the_same_points_in_journal_and_database_after_a_kill(
    spec: StudySpec, tmp_path: Path, postgres: servers.Postgres, algorithm: str
) -> None:
    """Trials run one at a time. During trial 5 the ledger is opened again, as by the process after a kill."""
    search = parse(type(spec.search), {"algorithm": algorithm, "startup": 4})
    spec = spec.model_copy(update={"search": search})
    points = []
    for place, broken in ((Place(tmp_path), False), (Place(tmp_path, postgres.database()), True)):
        made = ledger(spec, place)
        points.append([])
        for number in range(10):
            asked = made.ask()
            if broken and number == 5:
                made = ledger(spec, place)
                asked = made.ask()
                assert asked.again
            points[-1].append(asked.point)
            made.complete(asked.number, outcome(asked.point["T"] / 7 + number % 3))
    assert points[0] == points[1]


@pytest.mark.parametrize("at_once", [1, 2])
def test_ledger_random_search_asks_the_same_points_in_any_order_of_ends(
    spec: StudySpec, tmp_path: Path, postgres: servers.Postgres, at_once: int
) -> None:
    spec = spec.model_copy(update={"search": parse(type(spec.search), {"algorithm": "random"})})
    points: list[dict[int, object]] = []
    for place in (Place(tmp_path), Place(tmp_path, postgres.database())):
        made, asked = ledger(spec, place), {}
        running: list[int] = []
        while len(asked) < 12:
            while len(running) < at_once:
                new = made.ask()
                asked[new.number] = new.point
                running.append(new.number)
            made.complete(running.pop(len(asked) % at_once), outcome(1.0))
        points.append(asked)
    assert points[0] == points[1]


KILLED = """
import sys, time
from pathlib import Path
from coldtune.studies.trials.ledger import Ledger, open_ledger
from coldtune.studies.space.space import Space
from coldtune.studies.spec.study import StudySpec
from coldtune.studies.storage.backends import open_storage
from coldtune.studies.storage.outcome import Effort, TrialOutcome

folder, url = Path(sys.argv[1]), sys.argv[2] or None
spec = StudySpec.load(folder)
made = open_ledger("study", spec, Space(spec.space, spec.base, (1, 16, 16)), open_storage(folder, url))
for number in range(3):
    made.complete(made.ask().number, TrialOutcome({"fid": 3.0 - number}, effort=Effort(seconds=1.0)))
print(made.ask().number, made.ask().number, flush=True)
time.sleep(600)
"""


def test_ledger_resumes_after_a_killed_process(spec: StudySpec, place: Place) -> None:
    spec.save(place.folder)
    script = [sys.executable, "-c", KILLED, str(place.folder), place.url or ""]
    with subprocess.Popen(script, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().split() == ["3", "4"]
        process.kill()
    again = ledger(spec, place)
    assert again.finished() == 3
    assert again.best().number == 2
    assert again.best().user_attrs["seconds"] == 1.0
    assert again.interrupted() == [3, 4]
    assert [(a.number, a.again) for a in (again.ask() for _ in range(3))] == [(3, True), (4, True), (5, False)]


def two(root: Path, tmp_path: Path, objective: str, more: str = "") -> StudySpec:
    text = (root / "search_spaces" / "blur.yaml").read_text()
    space = tmp_path / "space.yaml"
    space.write_text(text.replace("{metric: fid, direction: minimize}", objective) + more)
    return build_spec("two", space)


def test_ledger_front_of_two_objectives_is_not_dominated(root: Path, tmp_path: Path, place: Place) -> None:
    spec = two(root, tmp_path, "[{metric: fid}, {metric: nfe}]")
    made = ledger(spec, place)
    told = [(3.0, 10.0), (1.0, 40.0), (2.0, 20.0), (2.5, 20.0), (4.0, 10.0), (1.0, 41.0)]
    for fid, nfe in told:
        made.complete(made.ask().number, TrialOutcome({"fid": fid, "nfe": nfe}))
    assert [trial.number for trial in made.front()] == [1, 2, 0]
    assert made.best().number == 1
    number = made.ask().number
    assert made.complete(number, TrialOutcome({"fid": 1.0})) == "nfe is nan"
    again = ledger(spec, place)
    assert [trial.number for trial in again.front()] == [1, 2, 0]
    assert spec.name != two(root, tmp_path, "{metric: fid}").name


def test_ledger_front_of_an_objective_is_its_best_trial(spec: StudySpec, tmp_path: Path) -> None:
    made = ledger(spec, tmp_path)
    assert made.front() == []
    for fid in (3.0, 1.0, 2.0):
        made.complete(made.ask().number, outcome(fid))
    assert [trial.number for trial in made.front()] == [1]


def test_spec_metric_twice_is_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\['fid', 'fid'\]: each metric once"):
        two(root, tmp_path, "[{metric: fid}, {metric: fid}]")


@pytest.mark.parametrize("algorithm", ["tpe", "nsga2", "nsga3", "gp", "random", "qmc"])
def test_ledger_every_search_takes_two_objectives(root: Path, tmp_path: Path, algorithm: str) -> None:
    spec = two(root, tmp_path, "[{metric: fid}, {metric: nfe}]", "\n")
    search = parse(type(spec.search), {"algorithm": algorithm, "startup": 2, "population": 4})
    made = ledger(spec.model_copy(update={"search": search}), tmp_path)
    asked = []
    for number in range(8):
        asked.append(made.ask())
        steps = asked[-1].point["T"]
        made.complete(number, TrialOutcome({"fid": float(steps), "nfe": 50.0 - steps}))
    assert len(made.front()) == len({a.point["T"] for a in asked}) or len(made.front()) == 8


def test_ledger_asks_within_the_constraint_of_evaluations(root: Path, tmp_path: Path) -> None:
    """Direct restoration needs 1 evaluation and the others T, so with at most 20, T > 20 is asked for direct only."""
    spec = two(root, tmp_path, "{metric: fid}", "constrain: {nfe: {max: 20}}\n")
    search = parse(type(spec.search), {"algorithm": "random"})
    made = ledger(spec.model_copy(update={"search": search}), tmp_path)
    points = [made.ask().point for _ in range(40)]
    assert all(p["T"] <= 20 or p["sampler"] == "direct" for p in points)
    assert any(p["T"] > 20 for p in points)


def test_ledger_asks_listed_points_first(root: Path, tmp_path: Path) -> None:
    more = """first:
  - {degradation.steps: 30, sampler.algorithm: direct}
  - {degradation.sigma.schedule: constant}
"""
    made = ledger(two(root, tmp_path, "{metric: fid}", more), tmp_path)
    points = [made.ask().point for _ in range(3)]
    base = points[0]
    assert points[1] == {**base, "T": 30, "sampler": "direct"}
    assert points[2] == {key: value for key, value in base.items() if key != "rate"} | {"schedule": "constant"}


@pytest.mark.parametrize(
    ("point", "said"),
    [
        ("{degradation.padding: reflect}", r"first\[0\]\.degradation\.padding: does not vary; allowed: "),
        ("{degradation.steps: 11}", r"degradation\.steps = 11: first\[0\] lies outside the space; allowed by vary"),
        ("{degradation.sigma.schedule: constant, degradation.sigma.rate: 0.1}", r"sigma\.rate: has no effect there"),
    ],
)
def test_ledger_listed_point_outside_the_space_is_refused(root: Path, tmp_path: Path, point: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ledger(two(root, tmp_path, "{metric: fid}", f"first: [{point}]\n"), tmp_path)


def test_ledger_grid_with_listed_points_is_refused(root: Path, tmp_path: Path) -> None:
    spec = two(root, tmp_path, "{metric: fid}", "first: [{degradation.steps: 30}]\n")
    with pytest.raises(ValueError, match=r"first: search\.algorithm = 'grid' asks every point anyway. Leave it out"):
        ledger(spec.model_copy(update={"search": parse(type(spec.search), {"algorithm": "grid"})}), tmp_path)


def test_ledger_half_told_failure_leaves_no_reason(spec: StudySpec, tmp_path: Path) -> None:
    first = ledger(spec, tmp_path)
    first.ownership.running[first.ask().number].set_user_attr("reason", "RuntimeError: boom")
    again = ledger(spec, tmp_path)
    again.complete(again.ask().number, outcome(1.0))
    assert again.trials()[0].user_attrs["reason"] == ""

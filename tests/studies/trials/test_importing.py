"""Importing trials of another study: which trials are taken over, and why the others are not."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from optuna.trial import FrozenTrial, TrialState

from coldtune.config import plain
from coldtune.data import Dataset, prepared
from coldtune.metrics import build_extractor, resolve
from coldtune.stages.trial import parse_trial
from coldtune.studies.space.space import Space
from coldtune.studies.spec.build import build_spec
from coldtune.studies.spec.folder import StudyFolder
from coldtune.studies.spec.study import StudySpec
from coldtune.studies.storage.backends import open_storage
from coldtune.studies.storage.outcome import StoredStage, TrialOutcome
from coldtune.studies.trials.importing import FIRST, gather, is_ready
from coldtune.studies.trials.ledger import Ledger, open_ledger
from coldtune.studies.trials.matching import Importer
from coldtune.studies.trials.setup import Imports

RATE = "degradation.sigma.rate"
SEARCH = """
base: digits-quick
vary:
  degradation.sigma.schedule: {choices: [constant, linear, exponential]}
  degradation.sigma.rate: {low: 0.01, high: 0.2, when: {degradation.sigma.schedule: [linear, exponential]}}
  degradation.steps: {low: 10, high: 40, step: 10}
search: {algorithm: random}
"""
NARROW = SEARCH.replace("high: 0.2", "high: 0.1")


@dataclass(frozen=True)
class Begun:
    """A study in a home: its spec, its imports and its ledger."""

    spec: StudySpec
    importer: Importer
    folder: StudyFolder
    imports: Imports
    ledger: Ledger

    def again(self) -> Ledger:
        """Open the ledger again, as another process would."""
        return open_ledger(self.folder.name, self.spec, self.importer.space, open_storage(self.folder.path))

    def end(self, fid: Callable[[Mapping[str, Any]], float], trials: int) -> Begun:
        """Ask `trials` trials and tell each as a worker does. `fid` returns the value of a point."""
        for _ in range(trials):
            asked = self.ledger.ask()
            assert asked is not None
            key = self.importer.result_key(asked.config)
            outcome = TrialOutcome(
                metrics={"fid": fid(asked.point), "kid": -fid(asked.point)},
                protocol=plain(self.importer.protocol),
                stages=(StoredStage("measure", key, False, 1.0),),
                checkpoint=f"/store/train/{asked.number}",
            )
            self.ledger.complete(asked.number, outcome)
        return self

    @property
    def complete(self) -> list[FrozenTrial]:
        return [trial for trial in self.ledger.trials() if trial.state == TrialState.COMPLETE]


@pytest.fixture
def begin(digits_home: Path, tmp_path: Path) -> Callable[..., Begun]:
    dataset = Dataset.open(prepared(digits_home, "digits")[0])

    def make(
        name: str,
        space: str,
        *settings: str,
        imports: tuple[str, ...] = (),
        url: str | None = None,
        replicates: int = 1,
    ) -> Begun:
        (tmp_path / "space.yaml").write_text(space)
        spec = build_spec("j", tmp_path / "space.yaml", settings=settings).model_copy(update={"imports": imports})
        trial = parse_trial(spec.base)
        protocol = resolve(trial.protocol, build_extractor(trial.protocol.extractor), dataset, trial.task)
        space_of = Space(spec.space, spec.base, dataset.image_shape)
        importer = Importer(spec, space_of, dataset, {}, protocol, replicates=replicates)
        folder = StudyFolder(tmp_path, name)
        found = gather(importer, folder, url)
        folder.save(spec, {"trials": 8, "fingerprint": dataset.fingerprint, "storage": url, "tracking_uri": None})
        ledger = open_ledger(
            name, spec, importer.space, open_storage(folder.path, url), imports=found, fingerprint=dataset.fingerprint,
            replicates=replicates,
        )  # fmt: skip
        return Begun(spec, importer, folder, found, ledger)

    return make


def of_steps(point: Mapping[str, Any]) -> float:
    return float(point["T"]) + float(point.get("rate", 0))


def inside(trial: FrozenTrial) -> bool:
    return float(trial.params.get("rate", 0.1)) <= 0.1


def test_import_narrower_space_takes_points_inside(begin: Callable[..., Begun]) -> None:
    wide = begin("wide", SEARCH).end(of_steps, 12)
    narrow = begin("narrow", NARROW, imports=("wide",))
    fit = [trial for trial in wide.complete if inside(trial)]
    assert 0 < len(fit) < 12
    out = 12 - len(fit)
    assert narrow.imports.summaries == {
        "wide": f"{len(fit)} of 12 trials fit; {out} lie outside {RATE} 0.01 to 0.1",
    }
    taken = narrow.complete
    assert [trial.number for trial in taken] == list(range(len(fit)))
    for trial, source in zip(taken, fit, strict=True):
        assert (trial.params, trial.values) == (source.params, source.values)
        assert trial.user_attrs["imported_from"] == {"study": "wide", "trial": source.number}
        for key in ("metrics", "protocol", "stages", "checkpoint"):
            assert trial.user_attrs[key] == source.user_attrs[key]
        assert trial.distributions == {name: narrow.importer.space.distributions[name] for name in trial.params}
    assert narrow.ledger.best().params == min(fit, key=lambda trial: trial.values).params


def test_imported_trials_do_not_count_and_are_not_asked_again(begin: Callable[..., Begun]) -> None:
    small = (
        "base: digits-quick\nvary: {degradation.steps: {low: 10, high: 40, step: 10}}\nsearch: {algorithm: random}\n"
    )
    first = begin("first", small).end(of_steps, 2)
    second = begin("second", small, "search.startup=3", imports=("first",))
    assert (second.ledger.imported(), second.ledger.finished(), second.ledger.wanted(2)) == (2, 0, 2)
    asked = [second.ledger.ask(2) for _ in range(3)]
    assert asked[2] is None, "two were wanted beside the imported ones"
    assert [one.number for one in asked[:2]] == [2, 3]
    every = {trial.params["T"] for trial in first.complete} | {one.point["T"] for one in asked[:2]}
    assert every == {10, 20, 30, 40}


FOUR = "base: digits-quick\nvary: {degradation.steps: {low: 10, high: 40, step: 10}}\nsearch: {algorithm: ALGORITHM}\n"


def test_import_takes_further_replicates_along(begin: Callable[..., Begun]) -> None:
    space = FOUR.replace("ALGORITHM", "random")
    begin("first", space, replicates=2).end(of_steps, 6)
    second = begin("second", space, imports=("first",), replicates=3)
    assert second.imports.summaries == {"first": "6 of 6 trials fit"}
    assert [sorted(setting.finished) for setting in second.ledger.settings()] == [[0, 1]] * 3
    assert second.ledger.finished() == 0
    assert second.ledger.wanted(1) == 3
    asked = [second.ledger.ask(1) for _ in range(3)]
    assert [one.label for one in asked] == ["3", "3.1", "3.2"], "the point that was not imported"
    single = begin("single", space, imports=("first",))
    assert single.imports.summaries == {"first": "3 of 6 trials fit; 3 differ in training.seed"}


def test_import_into_a_grid_takes_only_settings_with_all_replicates(begin: Callable[..., Begun]) -> None:
    space = FOUR.replace("ALGORITHM", "grid")
    begin("first", space, replicates=2).end(of_steps, 5)
    second = begin("second", space, imports=("first",), replicates=2)
    assert second.ledger.imported() == 2
    (said,) = second.imports.summaries.values()
    assert "3 belong to settings of fewer than 2 trainings, so they are asked again" in said
    asked = [second.ledger.ask(3) for _ in range(6)]
    assert [one.label for one in asked] == ["1", "2", "3", "1.1", "2.1", "3.1"]
    assert len({one.point["T"] for one in asked}) == 3


def test_import_wider_space_takes_all_points(begin: Callable[..., Begun]) -> None:
    narrow = begin("narrow", NARROW).end(of_steps, 6)
    more = SEARCH.replace("search:", "  degradation.kernel_size: {choices: [5, 7, 9]}\nsearch:")
    wide = begin("wide", more, imports=("narrow",))
    assert wide.imports.summaries == {"narrow": "6 of 6 trials fit"}
    assert [trial.params for trial in wide.complete] == [{**trial.params, "kernel": 7} for trial in narrow.complete]


def test_import_fixed_key_must_equal_the_base(begin: Callable[..., Begun]) -> None:
    kernel = "  degradation.kernel_size: {choices: [5, 7]}\n"
    both = f"base: digits-quick\nvary:\n{kernel}  sampler.num_steps: {{choices: [2, 4]}}\n"
    base = ["sampler.num_steps=2"]
    old = begin("old", both + "search: {algorithm: grid}\n", *base).end(lambda point: point["kernel"], 4)
    new = begin("new", both.replace(kernel, ""), *base, imports=("old",))
    assert new.imports.summaries == {"old": "2 of 4 trials fit; 2 differ in degradation.kernel_size"}
    sevens = [trial.params["num_steps"] for trial in old.complete if trial.params["kernel"] == 7]
    assert [trial.params for trial in new.complete] == [{"num_steps": steps} for steps in sevens]


def test_import_longer_training_asks_best_points_first(begin: Callable[..., Begun]) -> None:
    short = begin("short", SEARCH).end(of_steps, 12)
    long = begin("long", SEARCH, "training.steps=600", imports=("short",))
    (said,) = long.imports.summaries.values()
    assert (
        said == f"0 of 12 trials fit; 12 differ only in how long they train: the best are tried first ({FIRST} at most)"
    )
    assert long.complete == []
    asked = [long.ledger.ask() for _ in range(FIRST + 1)]
    base, *rest = [one.point for one in asked]
    assert base == long.importer.space.first
    ranked = [trial.params for trial in sorted(short.complete, key=lambda trial: trial.values)][:FIRST]
    assert rest[: FIRST - 1] == [point for point in ranked if point != base][: FIRST - 1]
    assert {one.config.training.steps for one in asked} == {600}
    whys = [trial.user_attrs.get("why", "") for trial in long.ledger.trials()]
    assert re.fullmatch(r"trial \d+ of short, whose training goes on", whys[1])


def test_import_other_protocol_takes_nothing(begin: Callable[..., Begun]) -> None:
    begin("old", SEARCH).end(of_steps, 3)
    new = begin("new", SEARCH, "protocol.num_images=300", imports=("old",))
    assert new.imports.summaries == {
        "old": "0 of 3 trials fit; 3 were judged under another protocol (num_images 363, here 300)"
    }
    assert new.ledger.imported() == 0


def test_import_other_report_interval_takes_all(begin: Callable[..., Begun]) -> None:
    begin("old", SEARCH).end(of_steps, 3)
    new = begin("new", SEARCH, "training.report_every=50", "training.checkpoint_every=50", imports=("old",))
    assert new.imports.summaries == {"old": "3 of 3 trials fit"}


def test_import_other_objective_takes_its_metric(begin: Callable[..., Begun]) -> None:
    old = begin("old", SEARCH).end(of_steps, 3)
    kid = begin("kid", SEARCH + "objective: {metric: kid}\n", imports=("old",))
    assert [trial.value for trial in kid.complete] == [-trial.value for trial in old.complete]
    mind = begin("mind", SEARCH + "objective: {metric: mind}\n", imports=("old",))
    assert mind.imports.summaries == {"old": "0 of 3 trials fit; 3 have no mind"}


def test_import_applies_constraints(begin: Callable[..., Begun]) -> None:
    old = begin("old", SEARCH).end(of_steps, 8)
    new = begin("new", SEARCH + "constrain: {nfe: {max: 20}}\n", imports=("old",))
    fit = sum(trial.params["T"] <= 20 for trial in old.complete)
    assert 0 < fit < 8
    out = f"{8 - fit} may not be asked here (constrain.nfe is at most 20)"
    assert new.imports.summaries == {"old": f"{fit} of 8 trials fit; {out}"}


def test_import_skips_failed_and_running_and_takes_pruned_trials(begin: Callable[..., Begun]) -> None:
    rungs = ["rungs.steps=[100]", "rungs.num_images=256"]
    old = begin("old", SEARCH, *rungs).end(of_steps, 1)
    old.ledger.fail(old.ledger.ask().number, "boom")
    pruned = old.ledger.ask()
    trial = old.ledger.ownership.running[pruned.number]
    trial.set_user_attr("rungs", {"100": {"kid": 2.0}})
    trial.report(2.0, 100)
    old.ledger.study.tell(old.ledger.ownership.running.pop(pruned.number), state=TrialState.PRUNED)
    old.ledger.ask()
    same = begin("same", SEARCH, *rungs, "search.startup=3", imports=("old",))
    assert same.imports.summaries == {"old": "2 of 4 trials fit; 1 failed; 1 had not ended"}
    (known,) = [trial for trial in same.ledger.trials() if trial.state == TrialState.PRUNED]
    assert (known.params, known.intermediate_values) == (pruned.point, {100: 2.0})
    assert known.user_attrs["rungs"] == {"100": {"kid": 2.0}}
    other = begin("other", SEARCH, "rungs.steps=[50]", imports=("old",))
    assert "1 were pruned at other rungs, or by another objective" in other.imports.summaries["old"]


def test_import_values_of_another_version_are_skipped(
    begin: Callable[..., Begun], monkeypatch: pytest.MonkeyPatch
) -> None:
    begin("old", SEARCH).end(of_steps, 2)
    monkeypatch.setattr("coldtune.stages.keys.MEASURE_VERSION", 99)
    new = begin("new", SEARCH, "search.startup=3", imports=("old",))
    assert new.imports.summaries == {
        "old": "0 of 2 trials fit; 2 were made by another version of coldtune, or drew from other images"
    }


def test_import_cut_off_is_completed_once(begin: Callable[..., Begun], monkeypatch: pytest.MonkeyPatch) -> None:
    old = begin("old", SEARCH).end(of_steps, 6)
    add, added = optuna.Study.add_trial, []

    def killed(study: optuna.Study, trial: FrozenTrial) -> None:
        if len(added) == 3:
            raise KeyboardInterrupt
        added.append(trial)
        add(study, trial)

    with monkeypatch.context() as patch:
        patch.setattr(optuna.Study, "add_trial", killed)
        with pytest.raises(KeyboardInterrupt):
            begin("new", NARROW, imports=("old",))
    folder = old.folder.path.parent / "new"
    assert not is_ready(StudyFolder(old.folder.home, "new"), None)
    new = begin("new", NARROW, imports=("old",))
    assert is_ready(StudyFolder(old.folder.home, "new"), None)
    fit = [trial.number for trial in old.complete if inside(trial)]
    assert [trial.user_attrs["imported_from"]["trial"] for trial in new.complete] == fit
    old.end(of_steps, 3)
    before = (folder / "journal.log").read_bytes()
    again = new.again()
    assert (again.imported(), again.finished()) == (len(fit), 0)
    assert (folder / "journal.log").read_bytes() == before, "a study that is ready is left as it is"


def test_imports_are_part_of_the_spec(begin: Callable[..., Begun]) -> None:
    plain_ = begin("old", SEARCH).spec
    assert plain_.name != plain_.model_copy(update={"imports": ("old",)}).name
    begin("new", SEARCH, imports=("old",))
    with pytest.raises(
        ValueError, match=r"--study new: .*another spec. .*--import new\. imports: \[\], there \['old'\]"
    ):
        StudyFolder(begin("x", SEARCH).folder.home, "new").check_same_study(plain_, "any")


def test_import_grid_asks_each_missing_point_once(begin: Callable[..., Begun]) -> None:
    grid = SEARCH.replace("random", "grid").replace("high: 0.2,", "high: 0.09, step: 0.02,")
    whole = begin("whole", grid)
    points = whole.ledger.points
    assert points is not None
    part = begin("part", NARROW).end(of_steps, 0)
    for point in whole.importer.space.grid()[1:4]:
        part.ledger.study.enqueue_trial(point)
    part.end(of_steps, 4)
    rest = begin("rest", grid, imports=("part",))
    assert (rest.ledger.imported(), rest.ledger.points) == (4, points - 4)
    rest.end(of_steps, points - 4)
    asked = [tuple(sorted(trial.params.items())) for trial in rest.complete]
    assert len(set(asked)) == len(asked) == points
    assert set(asked) == {tuple(sorted(point.items())) for point in whole.importer.space.grid()}


def test_import_variants_asks_the_missing_variants(begin: Callable[..., Begun]) -> None:
    def of(*names: str) -> str:
        variants = {f"by {name}": {"sampler.algorithm": name} for name in names}
        return yaml.safe_dump({"base": "digits-quick", "variants": variants}, sort_keys=False)

    begin("two", of("direct", "tacos")).end(lambda point: 1.0, 2)
    three = begin("three", of("tacos", "naive", "direct"), imports=("two",))
    assert [trial.params["variant"] for trial in three.complete] == ["by direct", "by tacos"]
    assert three.ledger.points == 1
    assert three.ledger.ask(1).point == {"variant": "by naive"}
    assert three.ledger.ask(1) is None


def test_import_genetic_search_uses_imported_trials_as_parents(begin: Callable[..., Begun]) -> None:
    begin("old", SEARCH).end(of_steps, 8)
    new = begin("new", SEARCH, "search.algorithm=nsga2", "search.population=4", imports=("old",))
    asked = new.ledger.ask()
    (trial,) = [trial for trial in new.ledger.trials() if trial.number == asked.number]
    assert trial.system_attrs["NSGAIISampler:generation"] == 1, "the imported ones are the first population"


def test_import_from_a_study_in_the_same_database(begin: Callable[..., Begun], tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/optuna.db"
    old = begin("old", SEARCH, url=url).end(of_steps, 3)
    (old.folder.path / "spec.yaml").unlink()  # as if it ran in another home
    new = begin("new", NARROW, imports=("old",), url=url)
    assert new.ledger.imported() == sum(map(inside, old.complete))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nowhere", r"--import nowhere: there is no such study; .* has old"),
        ("new", "--import new: is this very study"),
        ("colour", r"--import colour: its trials saw other images, digits \(fingerprint other\)"),
    ],
)
def test_import_impossible_is_refused_before_writing(
    begin: Callable[..., Begun], tmp_path: Path, name: str, said: str
) -> None:
    old = begin("old", SEARCH)
    if name == "colour":
        other = StudyFolder(tmp_path, "colour")
        other.save(old.spec, {**old.folder.start(), "fingerprint": "other"})
    with pytest.raises(ValueError, match=said):
        begin("new", SEARCH, imports=(name,))
    assert not (tmp_path / "studies" / "new").exists()

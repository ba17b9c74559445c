"""`coldtune report`: its numbers are the study's own, in every format and for every kind of study."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import synthetic_study as made_up
from coldtune import cli
from coldtune.cli import build_parser
from coldtune.config import plain
from coldtune.metrics import Judgement, Value
from coldtune.studies.progress.report import insight
from coldtune.studies.progress.report.content import StudyContent
from coldtune.studies.progress.report.provenance import describe_provenance
from coldtune.studies.progress.report.question import keys_table
from coldtune.studies.spec.folder import StudyFolder
from coldtune.studies.storage.outcome import Effort, Rung, StoredStage
from coldtune.studies.storage.record import TestResult, write_study
from coldtune.studies.trials.ledger import Ledger
from coldtune.studies.trials.reading import read_study
from page_checks import check_page

FORMATS = ("html", "md", "tex", "json")


@pytest.fixture
def study(tmp_path: Path, digits_home: Path) -> Callable[..., tuple[StudyFolder, Ledger]]:
    """Return a function that creates an empty study in a home of its own."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "data").symlink_to(digits_home / "data")
    return lambda *args, **more: made_up.open_study(home, digits_home, *args, **more)


def tell(ledger: Ledger, home: Path, *fids: float | str) -> None:
    """End the next trials with these FIDs, or let them fail with these reasons."""
    for fid in fids:
        asked = ledger.ask()
        assert asked is not None
        if isinstance(fid, str):
            ledger.fail(asked.number, fid)
        else:
            ledger.complete(asked.number, made_up.outcome(home, fid))


def test_report_of_a_search_names_the_best_the_base_and_the_cost(study, report) -> None:
    folder, ledger = study()
    tell(ledger, folder.home, 3.0, 2.0, 4.0, 2.5, "RuntimeError: boom")
    tree = json.loads(report(folder, "json"))
    answer = " ".join(tree["answer"])
    values = ", ".join(_values_of(tree["rows"][0]))
    assert answer.startswith(
        f"Trial 1 ({values}) has the best FID of 4 finished trials: FID 2.00 [1.60, 2.40], 95 % interval over images."
    )
    assert "The base, trial 0, has FID 3." in answer
    assert "1 of 5 trials failed; the last one, trial 4: RuntimeError: boom." in answer
    assert "Importance needs at least 20 finished settings, and there are 4." in tree["answer"], "what is undecided"
    assert "20 trainings" in tree["answer"][-1], "what it costs to decide"
    # 4 settings, 5 trainings each, of 20 s.
    assert "20 trainings, about 7 min of work" in answer
    assert tree["state"] == "5 of 5 trials ended."
    assert [row["number"] for row in tree["rows"]] == [1, 3, 0, 2, 4]
    assert tree["rows"][0]["best"]
    assert all(row["as_good_as_best"] is None for row in tree["rows"]), "single trainings have no verdicts"
    assert tree["table"]["heads"][:3] == ["trial", "FID sampled", "95 % ±"], "a narrow window shows these"
    facts = {fact["head"]: fact["text"] for fact in tree["provenance"]}
    assert facts["commit"] == made_up.ENVIRONMENT["commit"]
    spent = [fact["text"] for fact in tree["provenance"] if fact["head"] == "spent"]
    assert spent[0].startswith("0.02 device hours: trials took 0:01:20, of which 0:01:00 training")
    assert spent[1] == "The time of 1 failed trial is not recorded, and not in it."


def _values_of(row: dict[str, Any]) -> list[str]:
    """Return the values of a row as the answer writes them."""
    return [f"{name} {format(value, '.4g') if isinstance(value, float) else 'null' if value is None else value}"
            for name, value in row["params"].items()]  # fmt: skip


def test_report_of_variants_names_the_best_variant(study, report) -> None:
    folder, ledger = study("base: digits-quick\nvariants: {plain: {}, faster: {training.lr: 2.0e-3}}\n", trials=2)
    tell(ledger, folder.home, 3.0, 2.0)
    assert json.loads(report(folder, "json"))["answer"][0].startswith("Trial 1 (faster) has the best FID")


def test_report_question_of_a_search_among_variants_names_the_variant_of_the_base(study) -> None:
    variants = "variants: {plain: {}, soft: {training.loss: l2}}"
    folder, _ = study(f"base: digits-quick\n{variants}\nvary: {{training.lr: {{low: 0.001, high: 0.002}}}}\n")
    keys = keys_table(StudyContent(read_study(folder), folder, folder.start()))
    assert keys is not None
    assert keys.rows[0].cells == ("variant", "variant", "plain, soft", "plain")


@pytest.mark.parametrize(
    ("start", "recorded", "hours"),
    [
        ({}, {}, "1.00 device hours: trials took 1:00:00, of which 0:30:00 training"),
        # Half an hour of training by four workers, and half an hour of sampling by a single process.
        ({"workers": 4}, {}, "2.50 device hours: trials took 1:00:00, of which 0:30:00 training, on 4 devices"),
        ({"gpus_per_trial": 0.25}, {}, "0.25 device hours: "),
        ({"workers": 4, "gpus_per_trial": 2.0}, {}, "1.50 device hours: "),
        ({"workers": 4}, {"devices": 2}, "1.50 device hours: "),  # the study was resumed with other workers
    ],
)
def test_report_device_hours_count_the_devices_of_a_trial(
    study, start: dict[str, float], recorded: dict[str, float], hours: str
) -> None:
    folder, ledger = study(trials=1)
    folder.save(folder.spec(), {**folder.start(), **start})
    environment = {**made_up.ENVIRONMENT, **recorded}
    asked = ledger.ask()
    assert asked is not None
    effort = Effort(seconds=3600.0, trained=1800.0)
    ledger.complete(asked.number, made_up.outcome(folder.home, 3.0, environment=environment, effort=effort))
    content = StudyContent(read_study(folder), folder, folder.start())
    facts = {fact.head: fact.text for fact in describe_provenance(content)}
    assert facts["spent"].startswith(hours)


def test_report_steps_that_pruning_saved_are_never_negative(study, report) -> None:
    """A trial that shares the training of the pruned trial went further than the pruned trial would have."""
    folder, ledger = study(settings=("rungs.steps=[50]",))
    asked = ledger.ask()
    assert asked is not None
    long = (StoredStage("train", "network/900", False, 90.0),)
    ledger.complete(asked.number, made_up.outcome(folder.home, 3.0, stages=long))
    asked = ledger.ask()
    assert asked is not None
    rung = Rung(50, 300, "kid", {"kid": 0.5}, (StoredStage("train_50", "network/50", True, 5.0),), Effort(), 5.0)
    ledger.prunes(asked.number, rung)
    ledger.prune(asked.number, rung)
    facts = {fact["head"]: fact["text"] for fact in json.loads(report(folder, "json"))["provenance"]}
    assert facts["saved"] == "Pruned 1 trial: 0 of 900 steps were not trained (0%), 0:00:00 at the measured rates"


def test_report_counts_trials_with_the_same_images_once(study, report) -> None:
    folder, ledger = study()
    for fid in (3.0, 2.0, 2.0, 2.0, 2.5):
        asked = ledger.ask()
        assert asked is not None
        ledger.complete(asked.number, made_up.outcome(folder.home, fid, checkpoint="train/network/00000300"))
    tree = json.loads(report(folder, "json"))
    assert "2 other trials gave the same images as trial 1." in tree["answer"]
    labels = [row["label"] for row in tree["headline"]["rows"]]
    assert labels == ["trial 1 and 2 with the same images", "trial 4", "trial 0 (base)"]
    assert len(tree["rows"]) == 5
    # The best, the next with other images, and the base share a network.
    assert "the best settings and the base (3 in all) 5 times: 5 trainings for 15 trials" in tree["answer"][-1]


def test_report_cost_counts_a_training_of_several_settings_once(study, report) -> None:
    """The network of all trials is the same, as in a search over samplers. It took 40 s, and each trial takes 2 s."""
    folder, ledger = study()
    for fid, found in ((3.0, {}), *((fid, {"train": 1}) for fid in (2.0, 4.0, 2.5, 2.6))):
        asked = ledger.ask()
        assert asked is not None
        effort = Effort(found, None, 40.0, 2.0) if found else Effort({}, 40.0, None, 42.0)
        told = made_up.outcome(folder.home, fid, checkpoint="network", effort=effort)
        ledger.complete(asked.number, told)
    (said,) = [line for line in json.loads(report(folder, "json"))["answer"] if line.startswith("Each setting")]
    # 5 * 42 s and 15 * 2 s.
    assert said.endswith("(4 in all) 5 times: 5 trainings for 20 trials, about 4 min of work.")


def test_report_commands_are_accepted_by_the_command_line(study, report) -> None:
    folder, ledger = study(command="python 'jobs/my job.py' --trials 5")
    tell(ledger, folder.home, 3.0, 2.0, 4.0, 2.5, 2.6)
    tree = json.loads(report(folder, "json"))
    commands = [fact["text"] for fact in tree["commands"] if fact["command"]]
    assert commands[0].startswith("python 'jobs/my job.py' --trials 5")
    repeated = [row["repeat"] for row in tree["rows"]]
    for command in [*commands[1:], *(line for lines in repeated for line in lines)]:
        words = command.split()
        assert words[0] == "coldtune"
        build_parser().parse_args(words[1:])
    assert [lines[0].split()[2] for lines in repeated] == [f"{folder.name}/{n}" for n in (1, 3, 4, 0, 2)]


@pytest.mark.parametrize("kind", FORMATS)
def test_report_of_an_empty_study_says_that_there_is_no_answer(study, report, kind: str) -> None:
    folder, _ = study()
    assert "No trial has ended yet, so there is no answer." in report(folder, kind)


def test_report_of_a_study_whose_trials_all_failed_says_why(study, report) -> None:
    folder, ledger = study(trials=2)
    tell(ledger, folder.home, "ValueError: <b>", "ValueError: <b>")
    text = report(folder, "json")
    assert "none finished, and 2 of 2 trials failed; the last one, trial 1: ValueError: <b>." in text
    assert "&lt;b&gt;" in report(folder)
    assert "<b>" not in report(folder, "md")


def test_report_of_an_unfinished_study_says_that_it_may_change(study, report) -> None:
    folder, ledger = study()
    tell(ledger, folder.home, 3.0)
    ledger.ask()
    tree = json.loads(report(folder, "json"))
    assert not tree["complete"]
    assert "The study has not ended (1 of 5 trials ended), so this may change." in tree["answer"]
    assert [row["state"] for row in tree["rows"]] == ["finished", "interrupted"]
    assert any(fact["head"] == "resume" for fact in tree["commands"])


def test_report_of_pruned_trials_has_their_learning_curves(study, report) -> None:
    folder, ledger = study(settings=("rungs.steps=[50, 100]",))
    tell(ledger, folder.home, 3.0)
    asked = ledger.ask()
    assert asked is not None
    rung = Rung(50, 300, "kid", {"kid": 0.5})
    ledger.prunes(asked.number, rung)
    ledger.prune(asked.number, rung)
    tree = json.loads(report(folder, "json"))
    (curves,) = [figure for figure in tree["search"] if figure["title"] == "Learning curves"]
    assert [(point["x"], point["y"], point["group"]) for point in curves["points"]] == [(50.0, 0.5, "pruned")]
    assert tree["rows"][1]["state"] == "pruned"


def test_report_of_several_objectives_shows_the_front(study, report) -> None:
    folder, ledger = study(made_up.SPACE + "objective: [{metric: fid}, {metric: nfe}]\n", trials=4)
    for fid, nfe in ((3.0, 20.0), (2.0, 30.0), (4.0, 1.0), (5.0, 10.0)):
        asked = ledger.ask()
        assert asked is not None
        ledger.complete(asked.number, made_up.outcome(folder.home, fid, nfe))
    tree = json.loads(report(folder, "json"))
    assert tree["answer"][0].startswith("3 of 4 finished trials are not beaten in all objectives by another: 1, 0, 2.")
    assert "FID from 2 to 4 and NFE from 1 to 30" in tree["answer"][0]
    headline = tree["headline"]
    assert {(p["x"], p["y"]) for p in headline["points"] if p["group"] != "finished"} == {(20, 3), (30, 2), (1, 4)}
    assert headline["lines"][0]["points"] == [[1, 4], [20, 3], [30, 2]]
    assert all(p["low"] == pytest.approx(0.8 * p["y"]) for p in headline["points"])
    report(folder)


def test_report_with_the_cost_as_first_objective_shows_the_quality(study, report) -> None:
    """The order in which a space lists its objectives decides nothing but the axes of the front."""
    folder, ledger = study(made_up.SPACE + "objective: [{metric: nfe}, {metric: fid}]\n", trials=4)
    for fid, nfe in ((3.0, 20.0), (2.0, 30.0), (4.0, 1.0), (5.0, 10.0)):
        asked = ledger.ask()
        assert asked is not None
        ledger.complete(asked.number, made_up.outcome(folder.home, fid, nfe))
    tree = json.loads(report(folder, "json"))
    points = tree["headline"]["points"]
    assert all((p["x_low"], p["x_high"]) == pytest.approx((0.8 * p["x"], 1.2 * p["x"])) for p in points)
    titles = [figure["title"] for figure in tree["search"]]
    assert "FID in the order of the search" in titles
    assert "FID over T" in titles
    assert not any(title.startswith("NFE") for title in titles)
    (parallel,) = [figure for figure in tree["search"] if figure["kind"] == "parallel"]
    assert [axis["label"] for axis in parallel["axes"]][-2:] == ["NFE", "FID"]
    coloured = {tuple(path["values"][-2:]) for path in parallel["paths"] if path["group"] == "not beaten by another"}
    assert coloured == {(20, 3), (30, 2), (1, 4)}
    assert 'class="i g' in report(folder), "the intervals are drawn"


def test_report_of_three_objectives_draws_no_line_through_the_front(study, report) -> None:
    folder, ledger = study(made_up.SPACE + "objective: [{metric: fid}, {metric: nfe}, {metric: ssim}]\n", trials=3)
    for fid, nfe, ssim in ((3.0, 20.0, 0.9), (2.0, 30.0, 0.8), (2.5, 40.0, 0.95)):
        asked = ledger.ask()
        assert asked is not None
        told = made_up.outcome(folder.home, fid, nfe)
        ledger.complete(asked.number, replace(told, metrics={**told.metrics, "ssim": ssim}))
    tree = json.loads(report(folder, "json"))
    fronts = [tree["headline"], *(figure for figure in tree["search"] if "against" in figure["title"])]
    assert [figure["title"] for figure in fronts] == ["FID against NFE", "FID against SSIM", "NFE against SSIM"]
    assert not any(figure["lines"] for figure in fronts)


def test_report_of_replicates_draws_their_spread_along_the_front(study, report) -> None:
    space = made_up.SPACE + "objective: [{metric: fid}, {metric: nfe}]\n"
    folder, ledger = study(space, trials=2, replicates=2)
    while ledger.wanted(2) > 0:
        asked = ledger.ask(2)
        assert asked is not None
        told = made_up.outcome(folder.home, 3.0 + asked.replicate, 20.0)
        ledger.complete(asked.number, told)
    tree = json.loads(report(folder, "json"))
    for point in tree["headline"]["points"]:
        assert (point["low"], point["high"]) == pytest.approx((3.5 - 0.5**0.5, 3.5 + 0.5**0.5))
        assert point["x_low"] is None, "no training changes NFE"
    assert "a standard deviation of the trainings" in tree["headline"]["note"]


DESIGN = """
base: digits-quick
design: {kind: factorial}
factors: {training.loss: [l1, l2], sampler.algorithm: [tacos, naive]}
"""


def test_report_of_a_design_has_its_effects(study, report) -> None:
    folder, ledger = study(DESIGN, replicates=3, trials=4)
    fids: dict[str, list[float]] = {}
    while ledger.wanted(4) > 0:
        asked = ledger.ask(4)
        assert asked is not None
        noise = [0.0, 0.1, -0.1][asked.replicate]
        naive = asked.config.sampler.algorithm == "naive"
        fid = 1.0 + 2.0 * naive + noise
        fids.setdefault("naive" if naive else "tacos", []).append(fid)
        stage = StoredStage("train", f"{asked.config.training.trajectory()}/300", False, 1.0)
        ledger.complete(asked.number, made_up.outcome(folder.home, fid, stages=(stage,)))
    tree = json.loads(report(folder, "json"))
    assert tree["headline"]["kind"] == "forest"
    difference = statistics.fmean(fids["naive"]) - statistics.fmean(fids["tacos"])
    shown = {row["label"]: row for row in tree["headline"]["rows"]}
    assert shown["sampler=naive instead of tacos"]["value"] == pytest.approx(difference)
    assert "sampler=naive instead of tacos" in tree["answer"][0]
    assert tree["rows"][0]["spreads"]["fid"] == {"sd": pytest.approx(0.1), "n": 3}
    assert len(tree["rows"][0]["repeat"]) == 3
    report(folder)


def test_report_of_a_design_with_few_trainings_gives_no_verdict(study, report) -> None:
    folder, ledger = study(DESIGN, replicates=2, trials=4)
    while ledger.wanted(4) > 0:
        asked = ledger.ask(4)
        assert asked is not None
        stage = StoredStage("train", f"{asked.config.training.trajectory()}/300", False, 1.0)
        fid = 1.0 + 9.0 * (asked.config.sampler.algorithm == "naive") + 0.01 * asked.replicate
        ledger.complete(asked.number, made_up.outcome(folder.home, fid, stages=(stage,)))
    tree = json.loads(report(folder, "json"))
    assert tree["answer"][0] == "2 trainings of an arm are too few for a verdict about settings."
    assert not any("differ from 0" in sentence for sentence in tree["answer"])
    assert {row["group"] for row in tree["headline"]["rows"]} == {"too few trainings"}
    assert tree["headline"]["summary"].endswith("There are too few trainings for verdicts.")


def test_report_of_replicates_has_the_verdicts_and_every_training(study, report, tmp_path: Path) -> None:
    folder, ledger = study(
        "base: digits-quick\nvariants: {a: {}, <i>: {training.lr: 2.0e-3}}\n", replicates=3, trials=2
    )
    protocol = made_up.protocol_of(folder.home)
    while ledger.wanted(2) > 0:
        asked = ledger.ask(2)
        assert asked is not None
        fid = {"a": 1.0, "<i>": 5.0}[asked.point["variant"]] + 0.1 * asked.replicate
        judged = tmp_path / "judged" / asked.label
        judged.mkdir(parents=True)
        influence = 1e-3 * torch.randn(300, generator=torch.Generator().manual_seed(asked.number), dtype=torch.float64)
        values = {"fid": Value("fid", fid, 300, protocol)}
        Judgement(protocol, values, {"fid": influence - influence.mean()}).save(judged)
        told = made_up.outcome(folder.home, fid, measured={"sampled": str(judged)}, checkpoint=f"train/{asked.number}")
        ledger.complete(asked.number, told)
    tree = json.loads(report(folder, "json"))
    assert any(sentence.startswith("<i> is worse than a: FID 4.0") for sentence in tree["answer"])
    assert tree["headline"]["rows"][0]["label"] == "a (base)"
    assert tree["headline"]["rows"][0]["each"] == [pytest.approx(1.0 + 0.1 * r) for r in range(3)]
    assert "<i>" not in report(folder)


def test_report_shows_the_measurement_on_test(study, report) -> None:
    folder, ledger = study(trials=1)
    tell(ledger, folder.home, 3.0)
    protocol = {**plain(made_up.protocol_of(folder.home)), "split": "test"}
    write_study(ledger.study, test=TestResult(0, {"fid": 7.25}, protocol))
    assert "measured once on test: FID 7.25" in report(folder, "json")


def test_report_on_a_run_says_that_importance_takes_too_long(
    study, monkeypatch: pytest.MonkeyPatch, without_uv: None
) -> None:
    monkeypatch.setattr(insight, "_QUICK", range(1, 2))
    folder, ledger = study()
    tell(ledger, folder.home, 3.0, 2.0)
    content = StudyContent(read_study(folder), folder, folder.start())
    assert insight.find_importance(content, quick=True) is None
    shown = insight.explain_left_out(content)
    assert shown is not None
    assert f"`coldtune report {folder.name} --home {folder.home}` has it." in shown.sentences[0]


def test_report_file_that_exists_is_kept(study, report, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, _ = study()
    (tmp_path / "report.html").write_text("mine")
    with pytest.raises(SystemExit) as ended:
        cli.main(["report", folder.name, "--home", str(folder.home)])
    assert ended.value.code == 2
    assert "--overwrite" in capsys.readouterr().err
    assert (tmp_path / "report.html").read_text() == "mine"


def test_report_format_follows_from_the_ending(study, report, tmp_path: Path) -> None:
    folder, _ = study()
    for ending in FORMATS:
        with pytest.raises(SystemExit) as ended:
            cli.main(["report", folder.name, "--home", str(folder.home), "-o", f"out.{ending}"])
        assert ended.value.code == 0
        assert (tmp_path / f"out.{ending}").read_text()[:200] == report(folder, ending)[:200]


def test_report_live_page_loads_itself_again_until_the_study_ends(
    study, report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, ledger = study()
    tell(ledger, folder.home, 3.0)
    drivers = [["host a"], ["host a"], []]
    monkeypatch.setattr("coldtune.studies.drivers.election.DriverLease.others", lambda _: drivers[0])
    pages: list[str] = []

    def sleep(_: float) -> None:
        """Go on with the study, as its driver does in another process."""
        pages.append((tmp_path / "report.html").read_text())
        tell(ledger, folder.home, 2.0)
        drivers.pop(0)

    monkeypatch.setattr("coldtune.cli.report.time.sleep", sleep)
    last = report(folder, "html", "--live")
    assert ["1 of 5 trials ended" in pages[0], "2 of 5 trials ended" in pages[1]] == [True, True]
    assert all('http-equiv="refresh"' in page for page in pages)
    for page in pages:
        check_page(page)
    assert "3 of 5 trials ended" in last
    assert "refresh" not in last


def test_report_to_a_dash_is_printed(study, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder, _ = study()
    with pytest.raises(SystemExit) as ended:
        cli.main(["report", folder.name, "--home", str(folder.home), "-o", "-", "--format", "json"])
    assert ended.value.code == 0
    assert json.loads(capfd.readouterr().out)["study"] == folder.name
    assert not (tmp_path / "-").exists()


@pytest.mark.slow
def test_report_of_a_thousand_trials_is_small_and_the_same_again(study, report) -> None:
    folder, ledger = study(settings=("rungs.steps=[50, 100]",), trials=1000)
    made_up.fill(ledger, folder.home, 1000)
    text = report(folder)
    assert len(text.encode()) < 5_000_000
    assert text == report(folder)
    assert "trial 999" in text

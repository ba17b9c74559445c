"""Commands on a finished study with replicates, whose trainings have names such as `1.2`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from coldtune import cli
from coldtune.cli.evaluate_settings import compare_settings
from coldtune.config import plain
from coldtune.metrics import Protocol
from coldtune.studies.progress.verdicts import judge_two
from coldtune.studies.spec.folder import StudyFolder
from coldtune.studies.storage.record import TrialRecord
from coldtune.studies.trials.lookup import Home, find_run
from coldtune.studies.trials.reading import read_study
from coldtune.yaml_files import read_yaml
from finished_study import Finished, Replicated

Run = Callable[..., str]


@pytest.fixture
def run(replicated: Replicated, tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs a command in an empty folder. It returns the output, or raises its error."""
    monkeypatch.chdir(tmp_path)

    def call(*words: object, home: Path = replicated.home) -> str:
        with pytest.raises(SystemExit) as ended:
            cli.main([*(str(word).replace("STUDY", replicated.study) for word in words), "--home", str(home)])
        printed = capsys.readouterr()
        if ended.value.code:
            assert ended.value.code == 2
            raise ValueError(printed.err.removeprefix("error: ").strip())
        return " ".join(printed.out.split())

    return call


def evaluated(run: Run, *words: object, home: Path | None = None) -> tuple[str, Any]:
    said = run("evaluate", *words, "--json", "out.json", **({} if home is None else {"home": home}))
    return said, json.loads(Path("out.json").read_text())


def protocol_of(study: Replicated) -> Protocol:
    reader = read_study(StudyFolder(study.home, study.study))
    protocol = TrialRecord.of(reader.settings()[0].first).judged_under
    assert protocol is not None
    return protocol


@pytest.mark.slow
def test_rerun_of_a_replicate_agrees_bit_for_bit(run: Run, replicated: Replicated) -> None:
    said = run("rerun", "STUDY/1.1", "--output", "out")
    record = json.loads(Path("out/rerun.json").read_text())
    assert "Agrees bit for bit" in said
    assert record["run"] == f"{replicated.study}/1.1"
    assert record["metrics"]["fid"]["then"] == replicated.values["1.1"]["fid"] != replicated.values["1"]["fid"]


def test_export_of_a_replicate_has_its_seed_and_values(run: Run, replicated: Replicated) -> None:
    run("export", "STUDY/1.2", "exported")
    assert read_yaml(Path("exported/config.yaml"))["training"]["seed"] == replicated.configs["1.2"].training.seed == 2
    assert f"| FID | {replicated.values['1.2']['fid']:.4g} |" in Path("exported/README.md").read_text()


def test_restore_uses_the_network_of_the_replicate(run: Run) -> None:
    Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)).save("picture.png")
    for name in ("1", "1.1"):
        run("restore", f"STUDY/{name}", "picture.png", "-o", name, "--device", "cpu")
    first, second = (np.asarray(Image.open(next(Path(name).glob("picture*.png")))) for name in ("1", "1.1"))
    assert not np.array_equal(first, second)


def test_evaluate_of_a_replicate_has_its_values(run: Run, replicated: Replicated) -> None:
    said, record = evaluated(run, "STUDY/0.1")
    (evaluation,) = record["evaluations"]
    assert evaluation["name"] == f"{replicated.study}/0.1"
    assert evaluation["sets"]["sampled"]["metrics"]["fid"]["value"] == replicated.values["0.1"]["fid"]
    assert record["settings"] == []
    mean = np.mean([replicated.values[name]["fid"] for name in ("0", "0.1", "0.2")])
    assert f"{replicated.study}/0.1 is a single training of setting 0. All its trainings in the study have FID" in said
    shown = re.search(r"FID ([0-9.]+) ±", said)
    assert shown is not None
    assert float(shown[1]) == pytest.approx(mean, rel=0.05)


def test_evaluate_of_two_settings_adds_the_verdict_by_all_trainings(run: Run, replicated: Replicated) -> None:
    said, record = evaluated(run, "STUDY/0", "STUDY/1.1")
    (settings,) = record["settings"]
    assert f"This compares two trained networks. By all their trainings in {replicated.study}: setting 1 and" in said
    assert settings["sentence"] in said
    assert settings["trainings"] == [3, 3]
    assert settings["settings"] == ["setting 1", "setting 0"]
    means = [np.mean([replicated.values[f"{n}{r}"]["fid"] for r in ("", ".1", ".2")]) for n in (1, 0)]
    assert settings["difference"] == pytest.approx(means[0] - means[1])
    assert settings["low"] < settings["difference"] < settings["high"]
    assert (settings["outcome"] in ("better", "worse")) == (settings["low"] > 0 or settings["high"] < 0)


def test_evaluate_of_one_network_says_so_beside_the_verdict(run: Run) -> None:
    said, record = evaluated(run, "STUDY/1.1", "STUDY/0.1")
    assert "Both use one training, so this says nothing about other trainings. By all their trainings" in said
    assert record["settings"][0]["settings"] == ["setting 1", "setting 0"], "the base is always the second side"


def test_evaluate_of_one_setting_calls_the_difference_luck(run: Run) -> None:
    said, record = evaluated(run, "STUDY/1", "STUDY/1.1")
    assert "Both are trainings of setting 1, so the difference is the luck of training." in said
    assert record["settings"][0]["outcome"] is None


def test_evaluate_under_another_protocol_says_that_the_verdict_is_the_studys(replicated: Replicated) -> None:
    runs = [find_run(f"{replicated.study}/{name}", Home(replicated.home)) for name in ("0", "1")]
    same = protocol_of(replicated)
    other = same.model_copy(update={"split": "test"})
    sentences = [compare_settings(runs, used, replicated.home)[0].sentence for used in (same, other)]
    assert "under the protocol of the study (N = 260, validation)" in sentences[1]
    assert sentences[1].startswith(sentences[0])


def test_evaluate_of_config_files_finds_the_settings_of_their_study(replicated: Replicated, tmp_path: Path) -> None:
    names = []
    for name in ("0.1", "1.2"):
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(plain(replicated.configs[name]), sort_keys=False))
        names.append(str(path))
    runs = [find_run(name, Home(replicated.home)) for name in names]
    (found,) = compare_settings(runs, protocol_of(replicated), replicated.home)
    assert found.study == replicated.study
    assert found.verdict is not None
    assert (found.a, found.b) == (names[1], names[0])


def test_evaluate_of_two_steps_and_averages_of_a_training_says_that_it_is_one(
    replicated: Replicated, finished: Finished
) -> None:
    mine, judged = find_run(f"{finished.study}/0", Home(finished.home)), protocol_of(replicated)
    for changes in ({"at_step": 2}, {"ema_std": 0.1}):
        sampler = mine.config.sampler.model_copy(update=changes)
        other = replace(mine, name="elsewhere", config=mine.config.model_copy(update={"sampler": sampler}))
        (found,) = compare_settings([mine, other], judged, finished.home)
        assert found.sentence.startswith("Both use one training, so")
    training = mine.config.training.model_copy(update={"seed": 7})
    other = replace(mine, name="elsewhere", config=mine.config.model_copy(update={"training": training}))
    (found,) = compare_settings([mine, other], judged, finished.home)
    assert found.sentence.startswith("This compares two trained networks")


def test_evaluate_of_single_trainings_says_why_there_is_no_verdict(run: Run, finished: Finished) -> None:
    said, record = evaluated(run, f"{finished.study}/0", f"{finished.study}/1", home=finished.home)
    assert "Both use one training, so this says nothing about other trainings." in said
    assert "There is no verdict on their settings, because each was trained once." in said
    assert f"coldtune study resume {finished.study}" in said
    assert record["settings"][0]["outcome"] is None


def test_evaluate_of_two_studies_says_why_there_is_no_verdict(replicated: Replicated, finished: Finished) -> None:
    mine = find_run(f"{replicated.study}/0", Home(replicated.home))
    other = find_run(f"{finished.study}/1", Home(finished.home))
    unknown = replace(other, name="elsewhere", config=other.config.model_copy(update={"prior": {"kind": "gmm"}}))
    (found,) = compare_settings([mine, unknown], protocol_of(replicated), replicated.home)
    reason = f"because elsewhere belongs to no study and {mine.name} to {replicated.study}. "
    assert found.sentence.endswith(f"{reason}A verdict needs one study of both.")


def test_judge_two_same_verdict_as_the_family_if_it_was_planned(replicated: Replicated) -> None:
    reader = read_study(StudyFolder(replicated.home, replicated.study))
    verdict = judge_two(reader, 0, 1)
    assert not isinstance(verdict, str)
    assert not verdict.secondary
    assert (verdict.a, verdict.b) == ("setting 1", "setting 0")


def test_promote_takes_settings_and_no_single_training(run: Run) -> None:
    with pytest.raises(ValueError, match="setting 1: was not pruned; only a pruned setting is promoted"):
        run("study", "promote", "STUDY", "1")
    with pytest.raises(ValueError, match=r"1\.1: is a training of setting 1. Name the setting: 1"):
        run("study", "promote", "STUDY", "1.1")


def test_grid_with_replicates_names_the_mean_of_each_setting(run: Run) -> None:
    assert "grid.png" in run("grid", "STUDY", "--rows", "sampler.num_steps")
    assert Path("grid.png").stat().st_size > 0

"""A design that is resumed with more trainings, and the ablation of a finished search."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from e2e_lab import Lab, Running

from coldtune.studies.designs.effect_report import report_effects
from coldtune.studies.spec.folder import studies
from coldtune.studies.trials.reading import StudyReader, read_study

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(3600), pytest.mark.slow]
SETTINGS = ["training.steps=4", "training.batch_size=8", "training.validate_every=0", "protocol.num_images=260"]
SEARCH = """
base: digits-quick
vary:
  degradation.steps: {low: 4, high: 8, step: 4}
  training.loss: {choices: [l1, l2]}
  sampler.algorithm: {choices: [tacos, naive]}
first: [{degradation.steps: 8, training.loss: l2, sampler.algorithm: naive}]
"""


def coldtune(lab: Lab, home: Path, *words: str) -> Running:
    run = lab.start([sys.executable, "-m", "coldtune", *words, "--home", str(home)])
    assert run.wait() == 0, run.text
    lab.wait_until_empty()
    return run


def reader(home: Path, start: str) -> StudyReader:
    (folder,) = [folder for folder in studies(home) if folder.name.startswith(start)]
    return read_study(folder)


def test_ablation_of_a_search_trains_only_what_is_missing(lab: Lab) -> None:
    home, space = lab.path / "home", lab.path / "tiny.yaml"
    space.write_text(SEARCH)
    settings = [*SETTINGS, "degradation.steps=4"]
    coldtune(lab, home, "study", "run", str(space), "--trials", "2", "--set", *settings)
    (search,) = [folder.name for folder in studies(home)]
    run = coldtune(lab, home, "ablate", search, "--trial", "1")
    assert run.text.index("back to the base in this order") < run.text.index("trial 0 ")
    assert "4 trainings of 4 steps of 8 images" in run.text, "T and loss, each at two levels"
    assert "2 of them in the store already" in run.text

    report = report_effects(reader(home, f"{search}-ablation"))
    assert report is not None
    values = {}
    for row in report.rows:
        assert row.difference is not None
        values[row.effect.group, row.effect.name] = row.difference.value
    steps = [value for (group, _), value in values.items() if group == "step"]
    alone = [value for (group, _), value in values.items() if group == "alone"]
    whole = values["whole", "all changes"]
    assert len(steps) == len(alone) == 3
    assert sum(steps) == pytest.approx(whole)
    assert values["interaction", "interaction"] == pytest.approx(whole - sum(alone))

    again = coldtune(lab, home, "ablate", search, "--trial", "1")
    assert "so none is asked" in again.text
    assert len(re.findall(r"^trial +\d+ starts", again.text, re.MULTILINE)) == 0


def test_design_is_given_more_trainings(lab: Lab) -> None:
    home = lab.path / "home"
    job = [sys.executable, "jobs/ablate_samplers.py", "--home", str(home), "--set", *SETTINGS, "degradation.steps=4"]
    for replicates, trials in ((1, 3), (2, 6)):
        run = lab.start([*job, "--replicates", str(replicates)])
        assert run.wait() == 0, run.text
        lab.wait_until_empty()
        assert "design" in run.text
        assert len(reader(home, "ablate_samplers").trials()) == trials
    report = report_effects(reader(home, "ablate_samplers"))
    assert report is not None
    assert [row.interval is not None for row in report.rows] == [True, True]
    (table,) = home.glob("studies/ablate_samplers*/table.md")
    assert "| sampler=naive instead of tacos | " in table.read_text()

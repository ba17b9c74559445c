"""The preview of a study: its space, its feasible points, and its cost."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from coldtune import presets
from coldtune.cli import main
from coldtune.config import parse
from coldtune.data import Dataset, prepared
from coldtune.metrics import ProtocolConfig, build_extractor, resolve
from coldtune.stages.trial import parse_trial
from coldtune.studies.estimate import timing
from coldtune.studies.estimate.cost import CostEstimate, estimate_confirmation, estimate_cost
from coldtune.studies.estimate.preview import MOST_DRAWN, likely, preview
from coldtune.studies.estimate.timing import Timing, time_base
from coldtune.studies.space.config import SpaceConfig
from coldtune.studies.space.space import Space
from coldtune.studies.spec.build import build_spec


@pytest.fixture(scope="module")
def dataset(digits_home: Path) -> Dataset:
    return Dataset.open(prepared(digits_home, "digits")[0])


def test_timing_seconds_add_training_images_and_evaluations() -> None:
    """digits-quick trains 300 steps of 64 images. TACoS and Algorithm 1 evaluate T = 20 times, direct once."""
    seconds = Timing(images_per_s=100.0, evaluations_per_s=50.0).seconds(parse_trial(presets.load("digits-quick")), 10)
    assert seconds == pytest.approx(300 * 64 / 100 + 10 * (20 + 20 + 1) / 50)


def test_time_base_rates_are_those_of_the_fastest_repeat(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first training only warms up. Each sampling evaluates the network once on 64 images."""
    rates, clock = iter([900.0, 100.0, 300.0, 200.0]), iter([0.0, 0.5, 1.0, 1.1, 2.0, 2.4])
    monkeypatch.setattr(timing, "train", lambda *_, **__: SimpleNamespace(images_per_s=next(rates)))
    monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    rate = time_base(parse_trial(presets.load("digits-quick")), dataset)
    assert rate.images_per_s == 300.0
    assert rate.evaluations_per_s == pytest.approx(64 / 0.1)


def test_preview_shows_the_space_and_its_cost(root: Path, dataset: Dataset) -> None:
    tree = presets.read_yaml(root / "search_spaces" / "blur.yaml")
    config = parse(SpaceConfig, {key: tree[key] for key in ("base", "vary", "derive")})
    space = Space(config, presets.load("digits-quick"), dataset.image_shape)
    protocol = resolve(ProtocolConfig(), build_extractor("digits"), dataset)
    console = Console(width=160, color_system=None)
    with console.capture() as captured:
        # 192 s of training for each trial, and evaluations that take no time
        whole = CostEstimate(trials=10, trainings=8, samplings=30, training_s=1536.0, sampling_s=0.0, longest_s=192.0)
        console.print(preview(space, protocol, Timing(100.0, 1e9), [whole.describe(slots=2)], about=["what it is"]))
    text = captured.get()
    for path in config.vary:
        assert path in text
    assert "derived: holds leftover at 0.317" in text
    assert text.startswith("what it is\n")
    assert text.count("3 min\n") == 10, "ten points, all with the same training"
    assert "10 trials: 8 trainings (26 min) and 30 samplings (1 s), about 13 min with 2 at once" in text


def test_confirmation_estimate_counts_up_to_four_settings(root: Path, dataset: Dataset) -> None:
    spec = build_spec("x", root / "search_spaces" / "blur.yaml", settings=["protocol.num_images=100"])
    space, timing = Space(spec.space, spec.base, dataset.image_shape), Timing(64.0, 100.0)
    points = likely(space, spec, 8)
    study = (space, dataset, {}, timing)
    found, four = estimate_confirmation(points, *study, 5, 4), estimate_cost(points[:4], *study, 5)
    assert (found.trials, found.replicates, found.trainings) == (4, 5, 20)
    assert found.training_s == pytest.approx(four.training_s), "all trainings of this space take equally long"
    assert estimate_confirmation(points[:3], *study, 5, 4) == estimate_cost(points[:3], *study, 5)


def test_estimate_shared_training_is_counted_once(root: Path, dataset: Dataset) -> None:
    """24 samplers share a restorer, so there is a single training. Each sampler and both baselines sample."""
    spec = build_spec("x", root / "search_spaces" / "samplers.yaml", settings=["protocol.num_images=100"])
    space = Space(spec.space, spec.base, dataset.image_shape)
    points = likely(space, spec, 24)
    whole = estimate_cost(points, space, dataset, {}, Timing(images_per_s=64.0, evaluations_per_s=100.0))
    assert (whole.trials, whole.trainings, whole.training_s, whole.longest_s) == (24, 1, 300.0, 300.0)
    # Algorithm 1 at every step without clamping is among the 24 samplers. Direct restoration is not.
    assert whole.samplings == 24 + 1
    assert whole.sampling_s == pytest.approx(4 * (20 + 10 + 7 + 5 + 3 + 2) + 1)
    assert "1 training (5 min)" in whole.describe(slots=2)
    assert "about 5 min with 2 at once" in whole.describe(slots=2), "two trials cannot divide a single training"


def test_estimate_of_a_search_uses_feasible_points(root: Path, dataset: Dataset) -> None:
    spec = build_spec("x", root / "search_spaces" / "training.yaml")
    space = Space(spec.space, spec.base, dataset.image_shape)
    points = likely(space, spec, 5)
    assert points[0] == space.first
    assert len({repr(point) for point in points}) == 5
    whole = estimate_cost(points, space, dataset, {}, Timing(images_per_s=1.0, evaluations_per_s=1e9))
    assert whole.trainings == 5
    assert whole.training_s == sum(300 * point["batch"] for point in points)


def test_estimate_of_many_trials_is_scaled_from_few_points(root: Path, dataset: Dataset) -> None:
    spec = build_spec("x", root / "search_spaces" / "training.yaml")
    space = Space(spec.space, spec.base, dataset.image_shape)
    assert len(likely(space, spec, 1_000_000)) == MOST_DRAWN
    few = CostEstimate(trials=300, trainings=150, samplings=600, training_s=30.0, sampling_s=6.0, longest_s=2.0)
    many = few.scale_to(3000, shared=False)
    assert (many.trials, many.trainings, many.samplings, many.training_s, many.longest_s) == (3000, 1500, 6000, 300, 2)
    assert "3,000 trials, judging by 300 of them: 1,500 trainings (" in many.describe(slots=2)
    assert few.scale_to(3000, shared=True).trainings == 150, "all trials share these trainings"
    assert few.scale_to(300, shared=False) == few


def test_study_preview_command_prints_costs_and_starts_nothing(
    root: Path, digits_home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(digits_home / "data", tmp_path / "data")
    space = str(root / "search_spaces" / "samplers.yaml")
    with pytest.raises(SystemExit) as ended:
        main(["study", "preview", space, "--home", str(tmp_path)])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert "24 points as a grid, 100% of it may be asked" in shown
    assert "24 trials: 1 training (" in shown, "the default is every point of a grid"
    assert not (tmp_path / "studies").exists(), "nothing was started"
    words = [str(root / "search_spaces" / "blur.yaml"), "--trials", "5", "--replicates", "3", "--confirm", "5"]
    with pytest.raises(SystemExit) as ended:
        main(["study", "preview", *words, "--home", str(tmp_path)])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert "5 settings x 3 trainings: 15 trainings (" in shown
    assert "the confirmation: 4 settings x 5 trainings: 20 trainings (" in shown
    assert not (tmp_path / "studies").exists()
    with pytest.raises(SystemExit) as ended:
        main(["study", "preview", space, "--home", str(tmp_path), "--confirm", "2"])
    assert ended.value.code == 2
    assert "--confirm 2: allowed: 3 to" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        main(["study", "preview", space, "--home", str(tmp_path), "--set", "sampler.stepz=3"])
    assert ended.value.code == 2
    assert "sampler.stepz" in capsys.readouterr().err

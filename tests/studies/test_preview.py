"""The preview of a study: its space, points that it may ask, and costs that add up."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from rich.console import Console

from coldtune import presets
from coldtune.cli import main
from coldtune.config import parse
from coldtune.data import Dataset, prepared
from coldtune.metrics import ProtocolConfig, build_extractor, resolve
from coldtune.stages.trial import parse_trial
from coldtune.studies.preview import Probe, preview, probe
from coldtune.studies.space import Space
from coldtune.studies.space_config import SpaceConfig


@pytest.fixture(scope="module")
def dataset(digits_home: Path) -> Dataset:
    return Dataset.open(prepared(digits_home, "digits")[0])


def test_a_trials_seconds_are_its_images_and_its_evaluations() -> None:
    """digits-quick: 300 steps of 64 images; tacos and Algorithm 1 evaluate T = 20 times, direct once."""
    seconds = Probe(images_per_s=100.0, evaluations_per_s=50.0).seconds(parse_trial(presets.load("digits-quick")), 10)
    assert seconds == pytest.approx(300 * 64 / 100 + 10 * (20 + 20 + 1) / 50)


def test_a_probe_times_what_it_says(dataset: Dataset) -> None:
    found = probe(parse_trial(presets.load("digits-quick")), dataset)
    assert found.images_per_s > 0
    assert found.evaluations_per_s > found.images_per_s, "an evaluation is a part of a step of training"


def test_the_preview_shows_the_space_and_what_it_costs(root: Path, dataset: Dataset) -> None:
    tree = presets.read_yaml(root / "search_spaces" / "blur.yaml")
    config = parse(SpaceConfig, {key: tree[key] for key in ("base", "vary", "derive")})
    space = Space(config, presets.load("digits-quick"), dataset.image_shape)
    protocol = resolve(ProtocolConfig(), build_extractor("digits"), dataset)
    console = Console(width=160, color_system=None)
    with console.capture() as captured:
        # 192 s of training for each trial, and evaluations too fast to count
        console.print(preview(space, protocol, Probe(100.0, 1e9), trials=10, slots=2))
    text = captured.get()
    for path in config.vary:
        assert path in text
    assert "derived: holds leftover at 0.317" in text
    assert text.count("0:03:12") == 10, "ten points, all with the same training"
    assert "10 trials: about 0:32:00 of work, 0:16:00 with 2 at once" in text


def test_the_command(root: Path, digits_home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(digits_home / "data", tmp_path / "data")
    space = str(root / "search_spaces" / "samplers.yaml")
    with pytest.raises(SystemExit) as ended:
        main(["study", "preview", space, "--home", str(tmp_path), "--trials", "24"])
    assert ended.value.code == 0
    assert "24 points as a grid, 100% of it may be asked" in capsys.readouterr().out
    assert not (tmp_path / "studies").exists(), "nothing was started"
    with pytest.raises(SystemExit) as ended:
        main(["study", "preview", space, "--home", str(tmp_path), "--set", "sampler.stepz=3"])
    assert ended.value.code == 2
    assert "sampler.stepz" in capsys.readouterr().err

"""Errors in the command or the space are reported before Ray starts, in a line, and leave nothing behind."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from coldtune.cli.job import main
from coldtune.data import Dataset, prepared
from coldtune.studies.execution import cluster


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--set", "training.stepz=5"], "training.stepz = 5: unknown key; allowed: accumulate"),
        (["--set", "degradation.kernel_size=35"], "degradation.kernel_size = 35"),
        (["--set", "degradation.padding=zero"], "degradation.padding = 'zero'"),
        (["--set", "degradation.steps=60"], "the base lies outside the space"),
        (["--set", "protocol.num_images=100"], "protocol.num_images = 100: FID as an objective needs N >= 4 d = 256"),
        (["--set", "protocol.num_images=5000"], "protocol.num_images = 5000: the validation split of 'digits' has 363"),
        (["--set", "protocol.split=test"], "protocol.split = 'test': a search judges by validation"),
        (["--set", "protocol.extractor=nope"], "extractor = 'nope': allowed are"),
        (["--set", "data.image_size=8", "degradation.sigma.start=0.28"], "data.image_size = 8: at least 11"),
        (["--dataset", "celeba"], "celeba"),
        (["--dataset", "mnist", "--data-dir", "/nonexistent"], "/nonexistent"),
        (["--tracking-uri", "http://127.0.0.1:9"], "tracking URI = 'http://127.0.0.1:9': the server cannot be reached"),
        (["--tracking-uri", "ftp://x"], "tracking URI = 'ftp://x': unknown kind"),
        (["--storage", "nonsense://h/d"], "--storage nonsense://h/d: cannot be opened"),
        (["--store", "nonsense://bucket/x"], "--store nonsense://bucket/x: Unrecognized filesystem"),
        (["--trials", "0"], "--trials 0: at least 1"),
        (["--workers", "0"], "--workers 0: at least 1"),
        (["--workers", "10000"], "one trial needs 10000 CPUs (--workers 10000); the cluster has"),
        (["--gpus-per-trial", "1000"], "one trial needs 1000 GPUs (--gpus-per-trial 1000); the cluster has"),
        (["--join", "--storage", "sqlite:///x.db"], "x.db may give one trial to two drivers"),
        (["--import", "nowhere"], "--import nowhere: there is no such study; "),
        (
            ["--gpus-per-trial", "1.5"],
            "--gpus-per-trial 1.5: 1.5 GPUs for each of 1 worker; allowed for each is 0, 0.0001",
        ),
        (["--retries", "-1"], "--retries -1: 0 or more"),
        (["--max-failures", "-1"], "--max-failures -1: 0 or more"),
        (["--trial-timeout", "30"], "--trial-timeout 30: not a duration; say the unit"),
        (["--wait-for-nodes", "soon"], "--wait-for-nodes soon: not a duration"),
        (["--resume"], "--resume: there is no study sweep_blur-"),
        (["--study", "a/b"], "--study a/b: must be a folder's name"),
    ],
    ids=lambda value: "-".join(value)[:40] if isinstance(value, list) else "",
)
def test_wrong_command_is_refused_before_ray_starts(
    root: Path,
    digits_home: Path,
    tmp_path: Path,
    arguments: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(cluster, "connect", lambda *_: pytest.fail("Ray was started"))
    shutil.copytree(digits_home / "data", tmp_path / "data")
    with pytest.raises(SystemExit) as ended:
        main("sweep_blur", root / "search_spaces" / "blur.yaml", "", arguments=["--home", str(tmp_path), *arguments])
    printed = capsys.readouterr()
    assert ended.value.code == 2, printed
    assert said in printed.err
    assert printed.err.startswith("error: ")
    assert not list(tmp_path.glob("studies/*/spec.yaml")), "nothing was started"


def test_source_with_other_image_shape_is_refused(
    root: Path, digits_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Animorph blends images pixel by pixel, so both datasets need the same number of channels."""
    digits = Dataset.open(prepared(digits_home, "digits")[0])
    colour = replace(digits, manifest=digits.manifest.model_copy(update={"image_shape": (3, 16, 16)}))
    monkeypatch.setattr("coldtune.data.prepare", lambda config, *_, **__: digits if config.name == "digits" else colour)
    space = tmp_path / "space.yaml"
    space.write_text("base: digits-quick\nvary: {degradation.steps: {low: 5, high: 10}}\n")
    degradation = "degradation={kind: animorph, steps: 5, schedule: cosine, source: cifar10}"
    with pytest.raises(SystemExit):
        main("j", space, "", arguments=["--home", str(tmp_path), "--set", degradation])
    assert "degradation.source = 'cifar10': its images are 3x16x16" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("objective", "said"),
    [
        ("{metric: ssim, direction: maximize}", "objective.metric = 'ssim': compares images with their originals"),
        (
            "{metric: kid, direction: maximize}",
            "direction = 'maximize': kid is better the other way; allowed: minimize",
        ),
        ("{metric: lpips}", "objective.metric = 'lpips': unknown metric; allowed: fid, fid_infinity, kid, mind"),
    ],
)
def test_objective_without_meaning_is_refused(
    root: Path, digits_home: Path, tmp_path: Path, objective: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(digits_home / "data", tmp_path / "data")
    text = (root / "search_spaces" / "blur-generation.yaml").read_text()
    assert "{metric: fid}" in text
    space = tmp_path / "space.yaml"
    space.write_text(text.replace("{metric: fid}", objective))
    with pytest.raises(SystemExit):
        main("sweep_blur", space, "", arguments=["--home", str(tmp_path)])
    assert said in capsys.readouterr().err


def test_wrong_command_is_refused_without_importing_ray(root: Path, tmp_path: Path) -> None:
    script = (
        "import sys, runpy; sys.modules['ray'] = None\n"  # importing Ray would then raise another error
        f"sys.argv = ['sweep_blur.py', '--home', {str(tmp_path)!r}, '--tracking-uri', 'ftp://x']\n"
        f"runpy.run_path({str(root / 'jobs' / 'sweep_blur.py')!r}, run_name='__main__')\n"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=600)
    assert run.returncode == 2
    assert run.stderr.startswith("error: tracking URI = 'ftp://x'")
    assert "Traceback" not in run.stderr

"""`coldtune data` on images of the user's own: from a folder to a judge that a study can use."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from coldtune import cli
from coldtune.cli.job import main


def write_shapes(folder: Path, count: int, side: int = 16) -> None:
    """Write pictures of two classes, dark ones with a bright square and bright ones with a dark square."""
    rng = np.random.default_rng(0)
    for number in range(count):
        label = number % 2
        pixels = rng.integers(0, 60, (side, side, 3), dtype=np.uint8) + np.uint8(190 * label)
        r, c = rng.integers(0, side - 6, 2)
        pixels[r : r + 6, c : c + 6] = rng.integers(100, 160, 3)
        path = folder / ("dark", "bright")[label] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)


def coldtune(line: str, home: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        cli.main([*line.split(), "--home", str(home)])
    shown = capsys.readouterr()
    return int(ended.value.code or 0), shown.out, shown.err


@pytest.mark.filterwarnings("default")
def test_train_judge_of_a_folder_is_listed_and_named_to_the_next_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_shapes(tmp_path / "own", 80)
    home = tmp_path / "home"
    code, out, _ = coldtune(f"data prepare {tmp_path}/own", home, capsys)
    assert code == 0
    assert "2 classes (bright, dark)" in out
    assert "`coldtune data train-judge folder --image-size 16" in out.replace("uv run ", "")
    code, out, _ = coldtune(f"data train-judge {tmp_path}/own --epochs 2", home, capsys)
    assert code == 0, out
    name = re.search(r"^(judge\.[0-9a-f]{12})$", out, re.MULTILINE)[1]
    assert "accuracy" in out
    assert "raw pixels" in out
    assert f"coldtune study run blur --dataset folder --data-dir {tmp_path}/own --home {home} --set" in out
    assert f"protocol.extractor={name}" in out
    code, out, _ = coldtune("data judges --json", home, capsys)
    (card,) = json.loads(out)
    assert (card["name"], card["kind"], card["data"]["classes"]) == (name, "classifier", ["bright", "dark"])
    assert (home / "judges" / f"{card['sha256']}.safetensors").is_file()
    assert name in coldtune("data judges", home, capsys)[1]
    assert name in coldtune(f"data prepare {tmp_path}/own", home, capsys)[1]
    (home / "judges" / f"{card['sha256']}.safetensors").write_bytes(b"")
    code, out, error = coldtune("data judges --json", home, capsys)
    assert (code, json.loads(out)) == (1, [])
    assert f"{card['sha256']}.safetensors" in error
    assert "coldtune data train-judge folder" in coldtune(f"data prepare {tmp_path}/own", home, capsys)[1]


SPACE = """
base:
  data: {{name: folder, path: {folder}, image_size: 16}}
  degradation: {{kind: blur, kernel_size: 3, padding: circular, steps: 2, sigma: {{schedule: constant, start: 1.0}}}}
  restorer: {{size: micro}}
  training: {{steps: 2, batch_size: 8}}
  protocol: {{extractor: {extractor}}}
vary:
  sampler.algorithm: {{choices: [direct, tacos]}}
"""


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    ("extractor", "said"), [("digits", "3 channels"), ("cifar10", "N >= 4 d"), ("inception", "N >= 4 d = 8192")]
)
def test_study_of_own_images_without_a_judge_says_how_to_make_one(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    extractor: str,
    said: str,
) -> None:
    monkeypatch.setenv("COLDTUNE_INCEPTION", "/is/not/looked/for")
    write_shapes(tmp_path / "own", 60)
    space = tmp_path / "space.yaml"
    space.write_text(SPACE.format(folder=tmp_path / "own", extractor=extractor))
    with pytest.raises(SystemExit) as ended:
        main("own", space, "A question.", arguments=["--home", str(tmp_path / "home")])
    assert ended.value.code == 2
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(error) == 1
    assert said in error[0]
    assert "'folder' are 3x16x16" in error[0]
    assert f"coldtune data train-judge folder --image-size 16 --data-dir {tmp_path}/own --home" in error[0]


@pytest.mark.slow
@pytest.mark.e2e
@pytest.mark.filterwarnings("default")
def test_study_of_own_images_and_judge_works_from_preview_to_evaluate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import subprocess
    import sys

    write_shapes(tmp_path / "own", 240)
    home = tmp_path / "home"
    _, out, _ = coldtune(f"data train-judge {tmp_path}/own --epochs 5 --dim 8", home, capsys)
    name = re.search(r"^(judge\.[0-9a-f]{12})$", out, re.MULTILINE)[1]
    space = tmp_path / "own_blur.yaml"
    space.write_text(SPACE.format(folder="own", extractor=name))
    write_shapes(tmp_path / "other", 60)
    coldtune(f"data prepare {tmp_path}/other", home, capsys)

    def run(*words: str, folder: Path = tmp_path) -> str:
        command = [sys.executable, "-m", "coldtune", *words, "--home", str(home)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert "sampler" in run("study", "preview", str(space))
    table = run("study", "run", str(space), "--trials", "2", "--study", "mine")
    assert name in table  # in the line of the protocol
    assert name in run("evaluate", "mine/0")
    assert name in run("evaluate", "mine/0", "--extractor", name)
    assert name in run("study", "resume", "mine", folder=home)  # in which there is no folder `own`
    (tmp_path / "own").rename(tmp_path / "moved")
    assert name in run("study", "resume", "mine", folder=home)
    assert json.loads(run("data", "judges", "--json"))[0]["name"] == name

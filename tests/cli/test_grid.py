"""`coldtune grid` on a study whose images are known pixel by pixel."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence
from safetensors.torch import save, save_file

from coldtune import cli
from coldtune.cli.grid_cells import choose, describe_value, everything
from coldtune.config import plain
from coldtune.store.store import Store
from coldtune.studies.space.space import Space
from coldtune.studies.spec.build import build_spec
from coldtune.studies.spec.folder import StudyFolder
from coldtune.studies.storage.backends import open_storage
from coldtune.studies.storage.outcome import TrialOutcome
from coldtune.studies.trials.ledger import open_ledger
from finished_study import QUICK, Finished

SPACE = """
base: digits-quick
vary:
  degradation.steps: {choices: [4, 8]}
  sampler.algorithm: {choices: [tacos, naive, direct]}
  sampler.num_steps: {choices: [null, 2], when: {sampler.algorithm: [tacos, naive]}}
  training.lr: {low: 0.0001, high: 0.01, log: true}
"""
# The level of the images, the FID, and the state of each trial, by its point. The base comes first.
TRIALS = [
    ({"T": 4, "sampler": "tacos", "num_steps": None}, 20, 5.0),
    ({"T": 4, "sampler": "tacos", "num_steps": 2}, 60, 3.0),
    ({"T": 4, "sampler": "direct"}, 100, 4.0),
    ({"T": 8, "sampler": "tacos", "num_steps": None}, 140, 6.0),
    ({"T": 8, "sampler": "naive", "num_steps": 2}, None, None),
]
LEVELS = {20, 60, 100, 140, 180, 220}
Trials = Sequence[tuple[dict[str, Any], int | None, float | None]]


@pytest.fixture(scope="module")
def study(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> StudyFolder:
    """A study of five trials. The last has failed, all others have finished, and two of them differ in num_steps."""
    return make_study(tmp_path_factory.mktemp("grid"), finished, SPACE, TRIALS)


def make_study(home: Path, finished: Finished, space_text: str, trials: Trials) -> StudyFolder:
    """Make a study of these trials, the base first. The points of a design need no values of its own key."""
    shutil.copytree(finished.home / "data", home / "data")
    (home / "space.yaml").write_text(space_text)
    spec = build_spec("pictures", home / "space.yaml", settings=[*QUICK, "training.lr=0.001"])
    folder = StudyFolder(home, spec.name)
    start = {"trials": len(trials), "fingerprint": finished.dataset.fingerprint, "storage": None, "tracking_uri": None}
    folder.save(spec, {**start, "command": "python pictures.py"})
    ledger = open_ledger(
        spec.name, spec, Space(spec.space, spec.base, finished.dataset.image_shape), open_storage(folder.path)
    )
    protocol = finished.outcomes[0].protocol
    for point, _, _ in trials[1:]:
        ledger.study.enqueue_trial(point if "variant" in point else {**point, "lr": 0.001})
    for number, (_, level, fid) in enumerate(trials):
        assert ledger.ask().number == number
        if level is None:
            ledger.fail(number, "RuntimeError: boom")
            continue
        entry = Store(home / "store").put("sample", f"{number}" * 64, _writer(level))
        ledger.complete(number, TrialOutcome({"fid": fid}, plain(protocol), images={"sampled": str(entry.path)}))
    return folder


def _writer(level: int) -> Callable[[Path], dict[str, object]]:
    def write(folder: Path) -> dict[str, object]:
        images = torch.full((260, 1, 16, 16), level, dtype=torch.uint8)
        save_file({"images": images}, folder / "images.safetensors")
        save_file({"000004": images[:8] + 1, "000000": images[:8]}, folder / "strip.safetensors")
        return {"seconds": 0.0}

    return write


@pytest.fixture
def grid(study: StudyFolder, tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]):
    """Return a function that runs the command in an empty folder. It returns the picture and the output."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object, study: StudyFolder = study) -> tuple[Image.Image, str]:
        with pytest.raises(SystemExit) as ended:
            cli.main(["grid", study.name, "--home", str(study.home), *map(str, arguments)])
        printed = capsys.readouterr()
        if ended.value.code:
            raise ValueError(printed.err.removeprefix("error: ").strip())
        return Image.open(io.BytesIO((tmp_path / "grid.png").read_bytes())), printed.out

    return run


def levels(picture: Image.Image) -> dict[int, tuple[int, int]]:
    """Return by level the place of the images that have it, from the left and from the top."""
    grey = np.asarray(picture.convert("L"))
    places = {}
    for level in LEVELS:
        there = grey == level  # also single pixels at the edges of letters
        rows, columns = np.flatnonzero(there.sum(axis=1) > 60), np.flatnonzero(there.sum(axis=0) > 60)
        if len(rows) and len(columns):
            places[level] = (int(columns[0]), int(rows[0]))
    return places


def test_grid_cell_of_several_trials_shows_the_best(grid):
    picture, said = grid("--rows", "T", "--columns", "sampler")
    found = levels(picture)
    assert found.keys() == {60, 100, 140}, "trial 1 is better than trial 0, which has the same T and sampler"
    assert found[60][1] == found[100][1] < found[140][1]
    assert found[60][0] == found[140][0] < found[100][0]
    assert "4 / tacos: trial 1, best of 2" in said
    assert "8 / naive: trial 4 failed" in said
    assert "8 / direct" not in said
    assert "3 of 6 cells have no finished trial" in said


def test_grid_cell_of_replicates_shows_the_first_training_and_the_mean(tmp_path: Path) -> None:
    """Setting a has the best training, and setting b the best mean. Neither shows its luckiest training."""
    (tmp_path / "space.yaml").write_text("base: digits-quick\nvariants: {a: {}, b: {training.lr: 2.0e-3}}\n")
    spec = build_spec("job", tmp_path / "space.yaml")
    space = Space(spec.space, spec.base, (1, 16, 16))
    ledger = open_ledger("study", spec, space, open_storage(tmp_path), replicates=2)
    fids = {"0": 5.0, "0.1": 1.0, "1": 3.0, "1.1": 2.0}
    while ledger.wanted(2) > 0:
        asked = ledger.ask(2)
        ledger.complete(asked.number, TrialOutcome({"fid": fids[asked.label]}))
    ((choice,),) = choose(ledger, everything(), everything())
    assert choice.describe() == "trial 1, best of 2"
    assert describe_value(ledger, choice) == "FID 2.50 ± 0.71 (2)"  # sd: 0.5 times the root of 2


def test_grid_takes_dotted_keys_and_one_axis(grid):
    assert levels(grid("--rows", "degradation.steps", "--output", "grid.png")[0]).keys() == {60, 140}
    found = levels(grid("--columns", "num_steps", "--overwrite")[0])
    assert found.keys() == {20, 60, 100}, "null, 2, and the trial in which the key has no effect"
    assert found[20][0] < found[60][0] < found[100][0]


DESIGN = """
base: digits-quick
design: {kind: factorial}
factors:
  degradation.steps: [8, 4]
  sampler.algorithm: [tacos, direct]
  sampler.num_steps: {levels: [null, 2], when: {sampler.algorithm: tacos}}
derive:
  degradation.sigma.start: {hold: leftover, at: base}
"""
# T = 4 and null are the base.
ARMS = {
    "base (T=4 sampler=tacos num_steps=null)": 20,
    "T=4 sampler=tacos num_steps=2": 60,
    "T=4 sampler=direct": 100,
    "T=8 sampler=tacos num_steps=null": 140,
    "T=8 sampler=tacos num_steps=2": 180,
    "T=8 sampler=direct": 220,
}


@pytest.fixture(scope="module")
def design(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> StudyFolder:
    """A finished study of a factorial design."""
    trials = [({"variant": arm}, level, float(level)) for arm, level in ARMS.items()]
    return make_study(tmp_path_factory.mktemp("design"), finished, DESIGN, trials)


def test_grid_of_a_design_takes_its_factors(grid, design: StudyFolder):
    found = levels(grid("--rows", "T", "--columns", "sampler", study=design)[0])
    assert found.keys() == {20, 100, 140, 220}, "arms that differ in num_steps share a cell"
    assert found[140][1] == found[220][1] < found[20][1] == found[100][1], "the levels in the order of the file"
    assert found[140][0] == found[20][0] < found[220][0] == found[100][0]
    found = levels(grid("--columns", "sampler.num_steps", "--rows", "sampler", "--overwrite", study=design)[0])
    assert found.keys() == {20, 60, 100}, "num_steps has no effect with direct, although its default is null"
    assert found[20][0] < found[60][0] < found[100][0]


def test_grid_takes_derived_keys_and_lists_what_differs(grid, design: StudyFolder):
    found = levels(grid("--columns", "start", study=design)[0])
    assert len(found) == 2, "T decides sigma.start"
    differ = "allowed: variant, T, start, sampler, num_steps"
    with pytest.raises(ValueError, match=f"--rows beta: does not vary in this study; {differ}"):
        grid("--rows", "beta", "--overwrite", study=design)


def test_grid_animated_path_ends_at_the_sampled_images(grid):
    picture, _ = grid("--columns", "sampler", "--animate")
    frames = [np.asarray(frame.convert("L")) for frame in ImageSequence.Iterator(picture)]
    counts = [{level: int((frame == level).sum()) for level in (60, 61)} for frame in frames]
    last, first, end = counts
    assert last == end
    assert end[60] > 10_000 > first[60]
    assert first[61] > 10_000 > end[61]


def test_grid_difference_map_is_beside_its_image(grid):
    plain_picture, _ = grid("--columns", "sampler")
    picture, _ = grid("--columns", "sampler", "--difference", "--overwrite")
    assert picture.height > plain_picture.height
    for shown, coloured in ((plain_picture, False), (picture, True)):
        red, _, blue = np.asarray(shown.convert("RGB")).astype(int).transpose(2, 0, 1)
        assert bool((np.abs(red - blue) > 60).any()) == coloured, "the soft ink of captions is almost grey"


def test_grid_existing_file_is_kept_without_overwrite(grid, tmp_path: Path):
    (tmp_path / "grid.png").write_text("mine")
    with pytest.raises(ValueError, match=r"--output grid.png: exists already.*--overwrite"):
        grid("--rows", "T")
    assert (tmp_path / "grid.png").read_text() == "mine"
    grid("--rows", "T", "--overwrite")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name a key that varies with --rows KEY"),
        (["--rows", "beta"], r"--rows beta: does not vary in this study; allowed: T, sampler, num_steps, lr"),
        (["--rows", "T", "--columns", "degradation.steps"], "--columns degradation.steps: is the key of the rows too"),
        (["--rows", "T", "--images", "0"], "--images 0: allowed: 1 to 64"),
        (["--rows", "T", "--images", "9", "--animate"], "--images 9: allowed: 1 to 8, because the store keeps"),
        (["--rows", "T", "--output", "nowhere/grid.png"], "--output .*nowhere/grid.png: must be a file in an existing"),
    ],
)
def test_grid_wrong_flag_is_refused(grid, arguments: list[str], message: str):
    with pytest.raises(ValueError, match=message):
        grid(*arguments)


def test_grid_images_that_are_gone_leave_an_empty_cell(grid, study: StudyFolder):
    gone, kept = study.home / "store" / "sample" / ("2" * 64), study.home / "gone"
    gone.rename(kept)
    try:
        assert levels(grid("--rows", "T", "--columns", "sampler")[0]).keys() == {60, 140}
    finally:
        kept.rename(gone)


@pytest.mark.parametrize(
    "damaged", [None, torch.zeros(8, 1, 16, 16), torch.zeros(8, 2, 16, 16, dtype=torch.uint8), torch.zeros(0)]
)
def test_grid_damaged_images_leave_an_empty_cell(grid, study: StudyFolder, damaged: torch.Tensor | None):
    file = study.home / "store" / "sample" / ("2" * 64) / "images.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[:100] if damaged is None else save({"images": damaged}))
    try:
        assert levels(grid("--rows", "T", "--columns", "sampler")[0]).keys() == {60, 140}
    finally:
        file.write_bytes(content)

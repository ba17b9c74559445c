"""`coldtune restore` on pictures of every size and kind."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from coldtune import cli
from coldtune.cli.restore import unique_names
from coldtune.data import to_float, to_uint8
from coldtune.diffusion import build_degradation
from coldtune.stages.chain import Chain
from coldtune.stages.compute import Compute
from coldtune.stages.evaluate import FinishedTrial
from coldtune.stages.finished_restorer import find_restorer
from coldtune.stages.keys import train_key
from coldtune.stages.restore import Restoration
from coldtune.stages.trial import TrialConfig, parse_trial
from coldtune.store.store import Store
from coldtune.training.loop import train
from coldtune.yaml_files import read_yaml
from finished_study import Finished


@pytest.fixture
def restore(finished: Finished, tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]):
    """Return a function that runs the command in an empty folder. It returns the output, or raises its error."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object, trial: object = 0) -> str:
        words = ["restore", f"{finished.study}/{trial}" if isinstance(trial, int) else trial, *arguments]
        with pytest.raises(SystemExit) as ended:
            cli.main([*map(str, words), "--home", str(finished.home), "--device", "cpu"])
        printed = capsys.readouterr()
        if ended.value.code:
            assert ended.value.code == 2
            raise ValueError(printed.err.removeprefix("error: ").strip())
        return " ".join(printed.out.split())

    return run


@pytest.fixture
def validation(finished: Finished, tmp_path: Path) -> Path:
    """Write the first validation images as PNG files, and return their folder."""
    folder = tmp_path / "validation"
    folder.mkdir()
    for i, image in enumerate(finished.dataset.split("validation").images[:12]):
        Image.fromarray(image[0].numpy()).save(folder / f"{i}.png")
    return folder


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


def read(folder: Path, count: int) -> torch.Tensor:
    return torch.stack([torch.from_numpy(pixels(folder / f"{i}.png").copy())[None] for i in range(count)])


def test_restore_validation_images_equals_the_images_of_the_trial(finished, restore, validation, tmp_path):
    said = restore(validation)
    expected = load_file(finished.outcomes[0].images["sampled"] / "images.safetensors")["images"]
    indices = finished.outcomes[0].protocol.image_indices().tolist()
    found = read(tmp_path / "restored", 12)
    shared = [i for i in range(12) if i in indices]
    assert len(shared) > 3
    for i in shared:
        # Another batch size changes the last bits of a convolution, and then perhaps a rounding.
        assert (found[i].int() - expected[indices.index(i)].int()).abs().max() <= 1
    assert "cropped" not in said
    assert "reduced" not in said


def test_restore_degraded_pictures_takes_them_as_they_are(finished, restore, validation, tmp_path):
    d = build_degradation(finished.configs[0].degradation, finished.dataset.image_shape)
    clean = finished.dataset.split("validation").images[:3]
    x_t = to_uint8(d(to_float(clean), d.steps))
    (tmp_path / "blurred").mkdir()
    for i, image in enumerate(x_t):
        Image.fromarray(image[0].numpy()).save(tmp_path / "blurred" / f"{i}.png")
    run = FinishedTrial("x", finished.configs[0], finished.dataset)
    restored = Restoration(run, Store(finished.home / "store"), degraded=True).run_on(x_t)
    assert torch.equal(restored.degraded, x_t)
    said = restore("blurred", "--degraded", "--output", "out")
    assert torch.equal(read(tmp_path / "out", 3), restored.sampled)
    assert "RMSE" not in said, "the originals are not known"
    with_original, _ = restore("blurred/0.png", "--output", "two"), None
    assert "RMSE to the originals" in with_original
    assert (
        pixels(tmp_path / "out" / "side-by-side.png").shape[1] < pixels(tmp_path / "two" / "side-by-side.png").shape[1]
    )


def test_restore_pictures_of_other_sizes_and_colours_are_prepared_and_it_says_so(restore, tmp_path):
    Image.new("RGB", (90, 60), (200, 30, 30)).save(tmp_path / "wide.jpg")
    Image.new("L", (8, 8), 128).save(tmp_path / "small.bmp")
    Image.new("RGB", (16, 16), (7, 7, 7)).save(tmp_path / "fits.png")
    said = restore("wide.jpg", "small.bmp", "fits.png")
    assert "wide.jpg: colours converted to grey" in said
    assert "wide.jpg: cropped to the largest square around the centre" in said
    assert "wide.jpg: reduced to 16 x 16 pixels (bilinear)" in said
    assert "small.bmp: enlarged to 16 x 16 pixels (bilinear)" in said
    assert "fits.png:" not in said
    names = {path.name for path in (tmp_path / "restored").iterdir()}
    assert names == {"wide.png", "small.png", "fits.png", "side-by-side.png"}
    assert pixels(tmp_path / "restored" / "wide.png").shape == (16, 16)


def test_restore_files_of_one_name_are_all_kept(restore, tmp_path):
    for name in ("a/x.png", "b/x.png", "b/x.bmp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("L", (16, 16), 9).save(tmp_path / name)
    restore("a", "b")
    assert {path.name for path in (tmp_path / "restored").iterdir()} == {
        "x.png", "x-2.png", "x-3.png", "side-by-side.png"
    }  # fmt: skip


def test_unique_names_never_repeat_or_hide_the_sheet():
    paths = [Path("side-by-side.png"), Path("A.png"), Path("a.jpg"), Path("a-2.png")]
    names = unique_names(paths)
    assert len({name.lower() for name in names} | {"side-by-side"}) == 5


def test_restore_longest_file_names_are_cut_and_stay_different(restore, tmp_path):
    """A scratch file has a longer name than the picture, and Linux allows 255 bytes."""
    for name in ("x" * 251 + ".png", "x" * 249 + "-2.png", "é" * 125 + ".png"):
        Image.new("L", (16, 16), 9).save(tmp_path / name)
    restore(*sorted(path.name for path in tmp_path.iterdir()))
    written = sorted(path.name for path in (tmp_path / "restored").iterdir())
    assert written == ["side-by-side.png", "x" * 200 + "-2.png", "x" * 200 + ".png", "é" * 100 + ".png"]


def test_restore_folder_says_what_it_leaves_out(restore, validation, tmp_path):
    (validation / "notes.txt").write_text("")
    (validation / "photo.tiff").write_text("")
    with pytest.warns(UserWarning, match=r"notes.txt: not an image, so it is left out, as is 1 other file"):
        said = restore(validation)
    assert "12 pictures restored by" in said


@pytest.mark.parametrize(
    ("degradation", "sampled", "sentence"),
    [
        ({"kind": "noise", "steps": 4}, True, "estimates the draw"),
        (
            {"kind": "mask", "steps": 4, "center": "random", "beta": {"start": 1.0, "step": 1.0}},
            False,
            "Only direct restoration is possible",
        ),
    ],
)
def test_restoration_of_degraded_pictures_without_their_draw_says_what_it_does(
    finished: Finished, tmp_path: Path, degradation: dict, sampled: bool, sentence: str
):
    file = finished.config_file(tmp_path / "trial", training={"steps": 2})
    tree = read_yaml(file) | {"degradation": degradation}
    config: TrialConfig = parse_trial(tree)
    run, store = FinishedTrial("random", config, finished.dataset), Store(tmp_path / "store")
    Chain(config, finished.dataset, store).train(train, lambda *_: None)
    restoration = Restoration(run, store, degraded=True)
    assert restoration.samples == sampled
    assert any(sentence in notice for notice in restoration.notices)
    restored = restoration.run_on(finished.dataset.split("test").images[:2])
    assert (restored.sampled is not None) == sampled
    drawn = Restoration(run, store).run_on(finished.dataset.split("test").images[:2], seed=1)
    other = Restoration(run, store).run_on(finished.dataset.split("test").images[:2], seed=2)
    assert not torch.equal(drawn.degraded, other.degraded)
    assert drawn.sampled is not None


def test_restoration_by_a_trial_that_generates_degrades_and_says_so(finished: Finished, tmp_path: Path):
    tree = read_yaml(finished.config_file(tmp_path / "trial")) | {"prior": {"kind": "gmm", "components": 1}}
    run = FinishedTrial("generates", parse_trial(tree), finished.dataset)
    pictures = finished.dataset.split("test").images[:2]
    restoration = Restoration(run, Store(finished.home / "store"))
    assert ["prior" in notice for notice in restoration.notices] == [True]
    plain = Restoration(FinishedTrial("x", finished.configs[0], finished.dataset), Store(finished.home / "store"))
    assert torch.equal(restoration.run_on(pictures).degraded, plain.run_on(pictures).degraded)


def test_restorer_of_another_number_of_threads_is_found_by_its_configuration(finished: Finished, tmp_path: Path):
    run, store = FinishedTrial("x", finished.configs[0], finished.dataset), Store(tmp_path / "store")
    assert None in run.computed, "a configuration does not say how it was computed"
    key = train_key(run.config, run.dataset, compute=Compute(device="cpu", threads=7))
    entry = store.put("train", f"{key}/00000004", lambda folder: {"step": 4, "final": True, "seconds": 0.0})
    assert find_restorer(run, store).path == entry.path
    with pytest.raises(ValueError, match=r"x: training.steps = 4: no restorer of this training"):
        find_restorer(replace(run, computed=(Compute(device="cpu", threads=8),)), store)


def test_restore_bad_file_is_named_before_the_network_runs(restore, validation, tmp_path):
    (tmp_path / "notes.png").write_text("no picture")
    with pytest.raises(ValueError, match=r"notes.png is not a JPEG, PNG, WebP or BMP image"):
        restore(validation, "notes.png")
    with pytest.raises(ValueError, match=r"nowhere.png: no such file or folder"):
        restore("nowhere.png")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty: contains no image file"):
        restore("empty")
    assert not (tmp_path / "restored").exists()


def test_restore_full_folder_is_not_touched(restore, validation, tmp_path):
    (tmp_path / "restored").mkdir()
    (tmp_path / "restored" / "mine").write_text("")
    with pytest.raises(ValueError, match=r"--output restored: must be a new or an empty folder"):
        restore(validation)
    assert [path.name for path in (tmp_path / "restored").iterdir()] == ["mine"]

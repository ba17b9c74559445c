"""The pictures of `coldtune report`: images, maps of their differences and sampling paths, pixel by pixel."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageSequence

import synthetic_study as made_up
from finished_study import Finished


def shown(page: str) -> list[npt.NDArray[np.uint8]]:
    """Return the pictures of a page: uint8 (frames, height, width, 3)."""
    pictures = []
    for data in re.findall(r'<img src="data:image/png;base64,([^"]+)"', page):
        with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
            frames = [frame.convert("RGB") for frame in ImageSequence.Iterator(picture)]
        pictures.append(np.stack([np.asarray(frame) for frame in frames]))
    return pictures


def test_report_of_a_real_study_has_its_numbers_and_images(finished: Finished, report, tmp_path: Path) -> None:
    """The fixture keeps no addresses of images, so a study with them is made from its store."""
    home = tmp_path / "with images"
    shutil.copytree(finished.home / "data", home / "data")
    folder, ledger = made_up.open_study(
        home, finished.home, "base: digits-quick\nvary: {training.lr: {low: 0.001, high: 0.002}}\n"
    )
    for outcome in finished.outcomes:
        asked = ledger.ask()
        assert asked is not None
        images = {name: str(path) for name, path in outcome.images.items()}
        told = made_up.outcome(
            home, outcome.metrics["fid"], images=images, measured={"sampled": str(outcome.measured["sampled"])}
        )
        ledger.complete(asked.number, told)
    tree = json.loads(report(folder, "json"))
    values = [outcome.metrics["fid"] for outcome in finished.outcomes]
    assert [row["metrics"]["fid"] for row in tree["rows"]] == sorted(values)
    roles = [strip["label"].partition(":")[0] for strip in tree["pictures"]["strips"]]
    assert roles in (["originals", "base and best", "runner-up"], ["originals", "base and runner-up", "best"])
    text = report(folder)
    assert report(folder) == text
    assert [more["title"] for more in tree["pictures"]["more"]] == ["Differences to the originals", "Sampling paths"]
    originals, *sampled = shown(text)[:3]
    maps, paths, moving = (shown(text)[start : start + 2] for start in (3, 5, 7))
    assert len(shown(text)) == 9
    differences = [pixels[0].astype(int).mean(-1) - originals[0].astype(int).mean(-1) for pixels in sampled]
    largest = max(np.abs(each).max() for each in differences)
    for each, (colours,) in zip(differences, maps, strict=True):
        red, blue = colours[..., 0].astype(int), colours[..., 2].astype(int)
        assert (np.sign(red - blue) == np.sign(each))[np.abs(each) > largest / 50].all(), (
            "red is brighter than the original"
        )
        inside = (
            np.arange(each.shape[1]) % (each.shape[0] + 1) < each.shape[0]
        )  # between the images is a gap of a pixel
        assert (colours[:, inside][each[:, inside] == 0] == 255).all()
    strongest = [colours[np.abs(each) == largest] for each, (colours,) in zip(differences, maps, strict=True)]
    assert {tuple(colour) for colours in strongest for colour in colours} <= {(33, 102, 172), (178, 24, 43)}
    for pixels, path, frames in zip(sampled, paths, moving, strict=True):
        side = pixels.shape[1]
        width = 4 * side + 3 * (side // 16)  # of four images with gaps
        _, first, *_, last = frames  # before them is the picture for viewers that know no animated PNG
        assert (last == pixels[0][:, :width]).all(), "it ends with the sampled images"
        assert (path[0][:, :side] == first[:, :side]).all(), "both begin with x_T"
        assert (path[0][:, -side:] == pixels[0][:, :side]).all()

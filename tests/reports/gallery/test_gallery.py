"""The gallery of degradations: its page, its severities, and the iterates of its samplers."""

from __future__ import annotations

import base64
from html.parser import HTMLParser

import pytest
import torch
from PIL import Image

from coldtune import cli
from coldtune.diffusion.degradations import DEGRADATIONS
from coldtune.reports.gallery.entry import GalleryEntry, Source, samplers
from coldtune.reports.gallery.images import COLOR, GREY, LARGE, _save, load_source, photos, settings


@pytest.fixture(scope="module")
def sources() -> dict[str, Source]:
    """Return photographs at the smallest sizes that the presets allow."""
    small, large = photos(32), photos(64)
    grey = small.mean(dim=1, keepdim=True)
    return {
        "grey": Source("grey", grey, grey.flip(0)),
        "color": Source("color", small, small.flip(0)),
        "large": Source("large", large, large.flip(0)),
    }


EVERY = [("grey", name) for name in GREY] + [("color", name) for name in COLOR] + [("large", name) for name in LARGE]


class Links(HTMLParser):
    """The links of a page and the ids that they can lead to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.references: list[str] = []
        self.ids: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.references += [value for name, value in attrs if name in ("src", "href", "srcset", "data")]
        self.ids += [value for name, value in attrs if name == "id"]


def test_gallery_command_writes_a_page_that_contains_its_pictures(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["gallery", "--home", str(tmp_path / "home"), "--out", str(tmp_path / "out"), "--dataset", "digits"])
    assert ended.value.code == 0
    page = tmp_path / "out" / "index.html"
    assert capsys.readouterr().out.strip().endswith(str(page))
    text = page.read_text()
    assert "url(" not in text
    assert "@import" not in text
    links = Links(text)
    inside = [link[1:] for link in links.references if link.startswith("#")]
    assert len(inside) == len(GREY)
    assert set(inside) == set(links.ids)
    start = "data:image/png;base64,"
    embedded = [link.removeprefix(start) for link in links.references if not link.startswith("#")]
    written = {path.read_bytes() for path in page.parent.glob("digits-*.png")}
    assert {base64.b64decode(picture) for picture in embedded} == written
    assert len(embedded) == 2 * len(GREY)
    for path in page.parent.glob("*.png"):
        with Image.open(path) as picture:
            picture.load()
            assert min(picture.size) > 96
    assert (page.parent / "overview-digits.png").exists()


@pytest.mark.parametrize("name", ["grey", "color", "large"])
def test_gallery_settings_show_every_kind_of_degradation(sources, name):
    kinds = {GalleryEntry(sources[name], preset, 0).d.kind for preset in settings(sources[name])}
    paper = {"animorph", "blur", "desaturate", "downsample", "mask", "noise", "snow"}
    assert paper <= set(DEGRADATIONS)
    assert kinds == paper - ({"desaturate"} if name == "grey" else set())


@pytest.mark.parametrize(("name", "preset"), EVERY)
def test_gallery_entry_severities_run_from_0_to_steps(sources, name, preset):
    entry = GalleryEntry(sources[name], preset, 0)
    severities = entry.severities()
    assert (severities[0], severities[-1]) == (0, entry.d.steps)
    assert severities == sorted(set(severities))
    assert min(4, entry.d.steps + 1) <= len(severities) <= 9


@pytest.mark.parametrize("preset", [*GREY, "paper/cifar10-desaturate"])
def test_gallery_entry_algorithms_1_and_2_retrace_the_path(sources, preset):
    entry = GalleryEntry(sources["color" if "cifar10-d" in preset else "grey"], preset, 1)
    x = entry.source.images[1:]
    draw = None if entry.draw is None else entry.draw[1:]
    # The rounding error of an x_T that was truncated to 8 bit remains in the iterates of Algorithm 2.
    tolerance = 2 / 255 + 1e-6 if entry.settings.get("quantize") else 1e-6
    for sampler in ({"algorithm": "naive"}, {"algorithm": "tacos"}):
        iterates = entry.iterates(sampler)
        assert sorted(iterates) == list(range(entry.d.steps + 1))
        for s in entry.severities():
            assert torch.allclose(iterates[s], entry.d.exact(x, s, draw), rtol=0, atol=tolerance), (sampler, s)


@pytest.mark.parametrize(("name", "preset"), EVERY)
def test_gallery_samplers_suit_their_degradation(sources, name, preset):
    entry = GalleryEntry(sources[name], preset, 0)
    shown = dict(samplers(entry.d, 2))
    assert {"direct", "Algorithm 1", "Algorithm 2", "Algorithm 2, 2 evaluations"} <= set(shown)
    for sampler in shown.values():
        single_step = sampler if sampler["algorithm"] == "direct" else {**sampler, "num_steps": 1}
        assert set(entry.iterates(single_step)) == {entry.d.steps, 0}


def test_gallery_saved_snow_keeps_a_white_background(sources, tmp_path):
    # Snow fills an image with similar whites, which the reduction to 256 colours merges.
    picture = GalleryEntry(sources["large"], "paper/celeba-snow", 0).forward()
    with Image.open(_save(picture, tmp_path / "snow.png")) as saved:
        assert saved.mode == "P"
        assert saved.convert("RGB").getpixel((0, 0)) == (255, 255, 255)


def test_photos_show_a_pagoda_under_the_sky_and_an_orange_flower():
    pagoda, flower = photos(64)
    assert pagoda.abs().max() <= 1
    assert pagoda[2, :8, 40:].mean() > pagoda[0, :8, 40:].mean() > 0.4  # the sky is light and blue
    red, green, blue = flower[:, 24:40, 24:40].mean(dim=(1, 2))
    assert red > green > blue


def test_load_source_unknown_dataset_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"data.name = 'nowhere': unknown dataset; allowed: .*digits"):
        load_source("nowhere", tmp_path)

"""The gallery: what each degradation does to real images, and how each sampler comes back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from coldtune.data import prepare, to_float
from coldtune.reports.gallery.exhibit import Exhibit, Source
from coldtune.reports.gallery.page import Figure, Section, page
from coldtune.reports.gallery.sheet import sheet

PHOTOS = "photos"
DEFAULT = ("digits", PHOTOS)
_SMALL, _LARGE = 32, 128  # pixels: the sizes of the paper's settings
_OVERVIEW = 64  # pixels: the most that an image takes in the overview
# Top, left and side of the crops of scikit-learn's two photographs.
_CROPS = {"china.jpg": (0, 5, 427), "flower.jpg": (43, 130, 360)}

_ANY = ("paper/celeba-mask-generation", "authors/celeba-mask-generation", "paper/celeba-noise", "paper/celeba-animorph")
# The paper's settings for images of one channel, for small and for large ones in colour.
GREY = ("paper/mnist-blur", "paper/mnist-mask", "paper/mnist-downsample", "paper/cifar10-snow", *_ANY)
COLOR = (
    *("paper/cifar10-blur", "paper/cifar10-mask", "paper/cifar10-downsample"),
    *("paper/cifar10-desaturate", "paper/cifar10-snow", *_ANY),
)
LARGE = (
    *("paper/celeba-blur", "paper/celeba-blur-generation", "paper/celeba-mask", "authors/celeba-mask"),
    *("paper/celeba-downsample", "paper/celeba-desaturate", "paper/celeba-snow", *_ANY),
)


def settings(source: Source) -> tuple[str, ...]:
    """The presets whose degradations suit the images of `source`."""
    return GREY if source.shape[0] == 1 else COLOR if source.shape[1] < _LARGE // 2 else LARGE


def photos(size: int = _LARGE) -> Tensor:
    """Square crops of scikit-learn's sample photographs, a pagoda and a flower: (2, 3, size, size) in [-1, 1]."""
    from sklearn.datasets import load_sample_image  # takes a second to import

    crops = []
    for name, (top, left, side) in _CROPS.items():
        pixels = torch.from_numpy(load_sample_image(name).copy()).permute(2, 0, 1)[None].float()
        crop = pixels[:, :, top : top + side, left : left + side]
        crops.append(F.interpolate(crop, size=(size, size), mode="bicubic", antialias=True).clamp(0, 255))
    return torch.cat(crops) / 127.5 - 1


def load_source(name: str, home: Path) -> Source:
    """The images called `name`: `photos` at 128 px, or two of a dataset at 32 px, which is prepared under `home`.

    ValueError where there is no such dataset.
    """
    if name == PHOTOS:
        images = photos()
        return Source(name, images, images.flip(0))
    dataset = prepare({"name": name, "image_size": _SMALL}, home)
    split = dataset.split("validation")
    labels = torch.as_tensor(split.labels)
    other = int((labels != labels[0]).to(torch.int64).argmax())
    images = to_float(torch.as_tensor(split.images)[[0, other]])
    others = photos(_SMALL)
    return Source(name, images, others.mean(dim=1, keepdim=True) if images.shape[1] == 1 else others)


def make_gallery(sources: Sequence[Source], out: Path) -> Path:
    """Write the pictures as PNGs and `index.html`, which holds them all itself, into `out`; the page's path.

    For each source and setting: the images as t grows, and the way back of every sampler that suits the degradation,
    with the exact restorer, R(x_s, s) = x_0. An `overview-SOURCE.png` shows one image through all settings.
    """
    out.mkdir(parents=True, exist_ok=True)
    sections = []
    for source in sources:
        figures, overview = [], []
        for number, name in enumerate(settings(source)):
            exhibit = Exhibit(source, name, number % len(source.images))
            figures += [
                Figure(exhibit.title, exhibit.caption, _save(exhibit.forward(), out / f"{exhibit.slug}-forward.png")),
                Figure("", "", _save(exhibit.backward(), out / f"{exhibit.slug}-backward.png")),
            ]
            overview.append(exhibit.overview())
        side = source.shape[1]
        _save(
            sheet(overview, cell=min(_OVERVIEW, side * (_OVERVIEW // side) or _OVERVIEW)),
            out / f"overview-{source.name}.png",
        )
        sections.append(Section(source.name, source.shape, figures))
    index = out / "index.html"
    index.write_text(page(sections), encoding="utf-8")
    return index


def _save(picture: Image.Image, path: Path) -> Path:
    (_reduced(picture) if picture.mode == "RGB" else picture).save(path, optimize=True)
    return path


def _reduced(picture: Image.Image) -> Image.Image:
    """In 256 colours, dithered, for a third of the size; the paper, which Pillow would tint, stays white."""
    reduced = picture.quantize(palette=picture.quantize(256), dither=Image.Dither.FLOYDSTEINBERG)
    colors, paper = reduced.getpalette(), reduced.getpixel((0, 0))
    assert colors is not None
    assert isinstance(paper, int)
    colors[3 * paper : 3 * paper + 3] = [255, 255, 255]
    reduced.putpalette(colors)
    return reduced

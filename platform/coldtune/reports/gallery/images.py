"""The images of the gallery: sources, presets, and the PNG files with the page that shows them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from coldtune.data import prepare, to_float
from coldtune.reports.gallery.entry import GalleryEntry, Source
from coldtune.reports.gallery.page import Figure, Section, page
from coldtune.reports.gallery.sheet import sheet

PHOTOS = "photos"
DEFAULT = ("digits", PHOTOS)
_SMALL, _LARGE = 32, 128  # pixels: the sizes of the images in the paper
_OVERVIEW = 64  # pixels: the largest side of an image in the overview
# Top, left and side of the crops of scikit-learn's two photographs.
_CROPS = {"china.jpg": (0, 5, 427), "flower.jpg": (43, 130, 360)}

_ANY = ("paper/celeba-mask-generation", "authors/celeba-mask-generation", "paper/celeba-noise", "paper/celeba-animorph")
# Presets for grey images, for small colour images and for large colour images.
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
    """Return the presets whose degradations suit the number of channels and the size of the source's images."""
    return GREY if source.shape[0] == 1 else COLOR if source.shape[1] < _LARGE // 2 else LARGE


def photos(size: int = _LARGE) -> Tensor:
    """Return square crops of scikit-learn's photographs of a pagoda and a flower: (2, 3, size, size) in [-1, 1]."""
    from sklearn.datasets import load_sample_image  # takes a second to import

    crops = []
    for name, (top, left, side) in _CROPS.items():
        pixels = torch.from_numpy(load_sample_image(name).copy()).permute(2, 0, 1)[None].float()
        crop = pixels[:, :, top : top + side, left : left + side]
        crops.append(F.interpolate(crop, size=(size, size), mode="bicubic", antialias=True).clamp(0, 255))
    return torch.cat(crops) / 127.5 - 1


def load_source(name: str, home: Path, data_dir: Path | None = None) -> Source:
    """Load the images of a source.

    Args:
        name: "photos" for two photographs at 128 px, or a dataset for two of its validation images at 32 px.
        home: The folder under which the dataset is prepared.
        data_dir: The folder of its published files, if it must be prepared from there.

    Raises:
        ValueError: If the dataset is unknown, or its files are not there.
    """
    if name == PHOTOS:
        images = photos()
        return Source(name, images, images.flip(0))
    dataset = prepare({"name": name, "image_size": _SMALL}, home, data_dir)
    split = dataset.split("validation")
    labels = torch.as_tensor(split.labels)
    other = int((labels != labels[0]).to(torch.int64).argmax())
    images = to_float(torch.as_tensor(split.images)[[0, other]])
    others = photos(_SMALL)
    return Source(name, images, others.mean(dim=1, keepdim=True) if images.shape[1] == 1 else others)


def make_gallery(sources: Sequence[Source], out: Path) -> Path:
    """Write the gallery's PNG files and its page into a folder.

    Each source and preset has two pictures. The first shows the images as t grows. The second shows the way back of
    every sampler that suits the degradation, with the exact restorer R(x_s, s) = x_0. `overview-SOURCE.png` shows an
    image under all presets.

    Args:
        sources: The images.
        out: The folder, which is created if necessary.

    Returns:
        The path of `index.html`, which contains all pictures except the overviews.
    """
    out.mkdir(parents=True, exist_ok=True)
    sections = []
    for source in sources:
        figures, overview = [], []
        for number, name in enumerate(settings(source)):
            entry = GalleryEntry(source, name, number % len(source.images))
            figures += [
                Figure(entry.title, entry.caption, _save(entry.forward(), out / f"{entry.slug}-forward.png")),
                Figure("", "", _save(entry.backward(), out / f"{entry.slug}-backward.png")),
            ]
            overview.append(entry.overview())
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
    """Return the picture in 256 dithered colours, because the file is then a third as large."""
    reduced = picture.quantize(palette=picture.quantize(256), dither=Image.Dither.FLOYDSTEINBERG)
    colors, background = reduced.getpalette(), reduced.getpixel((0, 0))
    assert colors is not None
    assert isinstance(background, int)
    # Pillow averages similar colours, which would tint the white background.
    colors[3 * background : 3 * background + 3] = [255, 255, 255]
    reduced.putpalette(colors)
    return reduced

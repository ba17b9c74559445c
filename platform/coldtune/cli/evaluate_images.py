"""The part of `coldtune evaluate` that judges pictures from elsewhere, which `--images` names."""

from __future__ import annotations

import argparse
from functools import partial

from torch import Tensor

from coldtune.cli.common import find_home, open_store
from coldtune.data import prepare, read_images
from coldtune.data.registry import channels, source
from coldtune.metrics import build_extractor
from coldtune.stages.compute import Compute, cache_key
from coldtune.stages.evaluate import Evaluation, Split, evaluate_images
from coldtune.store.cache import StoreCache
from coldtune.studies.spec.build import JUDGES


def evaluate_pictures(options: argparse.Namespace, device: str) -> Evaluation:
    """Judge the pictures of `--images` against a split of the dataset `--reference`.

    Raises:
        ValueError: If the pictures cannot be read or do not fit the reference, or there is no feature extractor.
    """
    extractor = build_extractor(_choose_extractor(options), find_home(options))
    images = _read_pictures(options)
    data = {"name": options.reference, "image_size": images.shape[-1], "resize": options.resize or "bilinear"}
    dataset = prepare(data, find_home(options), options.data_dir)
    cache = StoreCache(open_store(options), partial(cache_key, compute=Compute.here(device)))
    split: Split = options.split or "validation"
    return evaluate_images(str(options.images), images, dataset, extractor, cache, split, options.seed or 0, device)


def _choose_extractor(options: argparse.Namespace) -> str:
    source(options.reference)  # ValueError if the dataset is unknown
    extractor = options.extractor or JUDGES.get(options.reference)
    if extractor is None:
        raise ValueError(
            f"--extractor: no judge ships for {options.reference!r} (there are: {', '.join(sorted(JUDGES))}). Name "
            "your own as module:attribute."
        )
    return str(extractor)


def _read_pictures(options: argparse.Namespace) -> Tensor:
    """Read the pictures with the channels of the reference, at the size of `--image-size` or at their own size."""
    size = options.image_size
    if size is None:
        images, _ = read_images(options.images)
        if images.shape[2] != images.shape[3]:
            raise ValueError(
                f"--images {options.images}: pictures of {images.shape[3]} x {images.shape[2]} pixels; datasets are "
                "square, so crop the pictures first"
            )
        if images.shape[1] == channels(options.reference):
            return images
        size = images.shape[-1]
    shape = (channels(options.reference), size, size)
    return read_images(options.images, shape, resize=options.resize)[0]

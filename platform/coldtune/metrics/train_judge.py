"""Training of a judge: a feature extractor for a dataset of the user's own, with its scores on held-out images.

With labels, the judge is a classifier, trained as the shipped classifiers are. Without labels, it is trained on views
of the images (`self_supervised`). The recipe is fixed beforehand, and only the training split is trained on, so all
other images are held out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from coldtune.config import plain
from coldtune.data import Dataset, to_float, to_uint8
from coldtune.data.dataset import Split
from coldtune.data.manifest import content_hash
from coldtune.data.progress import Advance
from coldtune.metrics.classifiers import Classifier, ClassifierConfig, accuracy
from coldtune.metrics.frechet import frechet_distance
from coldtune.metrics.judges import IMAGES_PER_DIM, JudgeCard, JudgedData, Scores, hash_weights, write_judge
from coldtune.metrics.judges import cards as stored_cards
from coldtune.metrics.reference import Reference
from coldtune.metrics.retrieval import label_retrieval, view_retrieval
from coldtune.metrics.self_supervised import BATCH as VIEWS_BATCH
from coldtune.metrics.self_supervised import PROJECTION, count_steps, make_view, train_self_supervised
from coldtune.metrics.train_classifier import BATCH, Recipe, train

_VERSION = 1  # increase it if the same training leads to other weights
_LARGEST_SIZE = 64  # of the network's input, in pixels
_MOST_DIM, _LEAST_DIM, _LARGEST_DIM = 64, 8, 1024
_SEEN = 64_000  # images in the default training, which is a minute at 16 pixels
_LEAST_EPOCHS, _MOST_EPOCHS = 5, {True: 100, False: 300}  # of a classifier, and of a training without labels
_LEAST_OF_CLASS = 3  # training images of a class. With fewer, its folder is no class but a name
_SCORED = 2000  # held-out images at most. They are in the order of their hashes, so the first are a random sample
_CHUNK = 256
_BLURS = (1, 4, 16)  # times that images are blurred by (1, 2, 1) / 4


def check_training(dim: int | None, epochs: int | None, seed: int) -> None:
    """Raise ValueError if a flag of a training makes no sense. None stands for the default."""
    for name, value, most in (("--dim", dim, _LARGEST_DIM), ("--epochs", epochs, 100_000)):
        if value is not None and not 1 <= value <= most:
            raise ValueError(f"{name} {value}: allowed: 1 to {most:,}")
    if not 0 <= seed < 2**63:
        raise ValueError(f"--seed {seed}: allowed: 0 to {2**63 - 1}")


def choose_kind(dataset: Dataset, ignore_labels: bool = False) -> tuple[bool, str]:
    """Return True if a judge of the dataset is a classifier, and otherwise False with the reason."""
    if ignore_labels:
        return False, "labels are ignored"
    counts = torch.bincount(dataset.split("train").labels, minlength=dataset.num_classes)
    if dataset.num_classes < 2:
        return False, "the images have no labels"
    if int((counts > 0).sum()) < 2:
        return False, "all training images are of one class, so the labels are ignored"
    if int((counts >= _LEAST_OF_CLASS).sum()) < len(counts) / 2:
        return False, f"most classes have fewer than {_LEAST_OF_CLASS} training images, so the labels are ignored"
    return True, ""


def choose_dim(dataset: Dataset) -> int:
    """Return the length of the feature vector: a multiple of 4 with N >= 4 d on validation and test, 8 to 64."""
    images = min(dataset.sizes["validation"], dataset.sizes["test"])
    return max(_LEAST_DIM, min(_MOST_DIM, images // IMAGES_PER_DIM // 4 * 4))


def choose_epochs(images: int, classify: bool) -> int:
    """Return the default number of epochs for so many training images."""
    return max(_LEAST_EPOCHS, min(_MOST_EPOCHS[classify], round(_SEEN / images)))


def train_judge(
    dataset: Dataset,
    start: Callable[[str, float | None, str], Advance],
    *,
    classify: bool,
    dim: int,
    epochs: int,
    seed: int = 0,
) -> tuple[JudgeCard, bool]:
    """Train a judge on one thread, score it, and write it into the dataset's home.

    Args:
        dataset: The prepared dataset. Its home gets the judge.
        start: Starts a progress bar (`Bars.start`).
        classify: True trains a classifier on the labels.
        dim: The length of the feature vector.
        epochs: The passes over the training split.
        seed: The seed of the training. The views by which a judge is scored have their own.

    Returns:
        The judge's card, and True if an equal training was found in the home and not repeated.

    Raises:
        ValueError: If there are too few images, or the judge cannot be written.
    """
    split = dataset.split("train")
    recipe = _recipe(dataset, classify, dim, epochs)
    training = plain(_describe_training(recipe, classify, epochs, seed))
    images, labels = _held_out(dataset)
    data = JudgedData(
        name=dataset.name,
        image_shape=dataset.image_shape,
        resize=dataset.manifest.resize,
        fingerprint=dataset.fingerprint,
        labels=content_hash(split.labels) if classify else None,
        classes=dataset.classes if classify else (),
        train=len(split),
        held_out=len(images),
    )
    for card in stored_cards(dataset.home, dataset.fingerprint):
        if (card.network, card.data, card.training) == (recipe.network, data, training):
            return card, True
    with _one_thread():
        classifier = _train(recipe, split, start, classify, epochs, seed)
        scores = score(classifier, images, labels if classify else None, split.labels if classify else None)
    dataset.recheck()
    weights, sha256 = hash_weights(classifier)
    card = JudgeCard(
        sha256=sha256,
        kind="classifier" if classify else "self-supervised",
        network=recipe.network,
        data=data,
        scores=scores,
        training=training,
    )
    write_judge(dataset.home, weights, card)
    return card, False


def _describe_training(recipe: Recipe, classify: bool, epochs: int, seed: int) -> dict[str, Any]:
    """Return everything that determines the judge of given data."""
    return {
        "version": _VERSION, "epochs": epochs, "batch_size": BATCH if classify else VIEWS_BATCH, "seed": seed,
        "lr": recipe.lr, "weight_decay": recipe.weight_decay, "shift": recipe.shift if classify else 0,
        "reflect": recipe.reflect if classify else False, "torch": torch.__version__,
    }  # fmt: skip


def _train(
    recipe: Recipe, split: Split, start: Callable[[str, float | None, str], Advance], classify: bool, epochs: int,
    seed: int,
) -> Classifier:  # fmt: skip
    if classify:
        advance = start("train a classifier", epochs * math.ceil(len(split) / BATCH), "steps")
        return train(recipe, split.images, split.labels, seed, advance)
    advance = start("train without labels", count_steps(len(split), epochs), "steps")
    return train_self_supervised(recipe.network, split.images, epochs, seed, recipe.lr, recipe.weight_decay, advance)


def score(
    classifier: Classifier, images: Tensor, labels: Tensor | None = None, trained: Tensor | None = None
) -> Scores:
    """Score a judge on held-out images, beside raw pixels.

    Args:
        images: uint8 (N, C, H, W).
        labels: The label of each image. None for a judge without labels.
        trained: The labels of the training split, which tell the most frequent class. None without labels.
    """
    features = _features(classifier, images)
    right: float | None = None
    chance: float | None = None
    if labels is not None and trained is not None:
        retrieval = label_retrieval(features, labels)
        pixels = label_retrieval(_pixels(_prepared(classifier, images)), labels)
        right = accuracy(classifier, images, labels)
        chance = float((labels == torch.bincount(trained).argmax()).double().mean())
    else:
        generator = torch.Generator().manual_seed(0)
        x = _prepared(classifier, images)
        first, second = make_view(x, generator), make_view(x, generator)
        retrieval = view_retrieval(_features_of(classifier, first), _features_of(classifier, second))
        pixels = view_retrieval(_pixels(first), _pixels(second))
    reference = Reference.of(features)
    blur = tuple(frechet_distance(reference, _features(classifier, images, times)) for times in _BLURS)
    return Scores(accuracy=right, chance=chance, retrieval=retrieval, pixels=pixels, blur=blur)


def _recipe(dataset: Dataset, classify: bool, dim: int, epochs: int) -> Recipe:
    channels, size, _ = dataset.image_shape
    size = min(size, _LARGEST_SIZE)
    widths = (16, 32, dim) if size <= 32 else (8, 16, 32, dim)
    classes = max(dataset.num_classes, 2) if classify else PROJECTION
    network = ClassifierConfig(channels=channels, size=size, widths=widths, num_classes=classes)
    # Images of the user's own are never mirrored, because that may change their meaning.
    return Recipe(dataset.name, network, epochs, shift=max(size // 16, 1), reflect=channels == 3)


def _held_out(dataset: Dataset) -> tuple[Tensor, Tensor]:
    """Return images and labels of validation and test, up to half of `_SCORED` of each."""
    splits = [dataset.split(name) for name in ("validation", "test")]
    images, labels = (
        torch.cat([getattr(split, name)[: _SCORED // 2] for split in splits]) for name in ("images", "labels")
    )
    if len(images) < 2:
        raise ValueError(f"{dataset.path}: {len(images)} held-out images; a judge is scored on at least 2")
    return images, labels


def _prepared(classifier: Classifier, images: Tensor) -> Tensor:
    """Return uint8 images (N, C, H, W) of any size as the network takes them, in [-1, 1]."""
    return torch.cat([classifier.prepare(part) for part in torch.split(images, _CHUNK)])


def _features(classifier: Classifier, images: Tensor, blurred: int = 0) -> Tensor:
    """Return the features, float64 (N, d), of uint8 images (N, C, H, W), blurred so often and rounded to 8 bits."""
    parts = [
        _features_of(classifier, classifier.prepare(to_uint8(_blurred(to_float(part), blurred)) if blurred else part))
        for part in torch.split(images, _CHUNK)
    ]
    return torch.cat(parts)


def _features_of(classifier: Classifier, x: Tensor) -> Tensor:
    """Return the features, float64 (N, d), of prepared images (N, C, h, w) in [-1, 1]."""
    with torch.no_grad():
        return torch.cat([classifier.features_of(part).double() for part in torch.split(x, _CHUNK)])


def _pixels(x: Tensor) -> Tensor:
    return x.double().flatten(1)


def _blurred(x: Tensor, times: int) -> Tensor:
    """Return images that are blurred by (1, 2, 1) / 4 in both directions, so often, with mirrored borders."""
    taps = torch.tensor([1.0, 2.0, 1.0], dtype=x.dtype) / 4
    channels = x.shape[1]
    kernel = (taps[:, None] * taps).expand(channels, 1, 3, 3)
    for _ in range(times):
        x = F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), kernel, groups=channels)
    return x


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute on one thread, because the number of threads decides the last bits of the weights."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)

"""The small classifiers that extract features of digits, MNIST and CIFAR-10.

`train_classifier` trains them, and their weights ship in weights/:

- `digits`: 1 channel, 16x16, trained on 1,076 of scikit-learn's digits, 99.2 % right on its 358 test images.
- `mnist`: 1 channel, 32x32, trained on 50,000 of MNIST's training images, 99.6 % right on its 10,000 test images.
- `cifar10`: 3 channels, 32x32, trained on 40,000 of CIFAR-10's training images, 89.3 % right on its 10,000 test images.

A JSON file beside each file of weights states the SHA-256, the data, the training and these measurements.
"""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path

import torch
from pydantic import Field
from safetensors.torch import load
from torch import Tensor, nn
from torch.nn import functional as F

from coldtune.config import Config
from coldtune.metrics.extractors import EXTRACTORS, Extractor

WEIGHTS = Path(__file__).parent / "weights"


class ClassifierConfig(Config):
    """The shape of a classifier, with input (channels, size, size).

    It has a block for each width, and each block after the first halves the image.
    """

    channels: int = Field(ge=1)
    size: int = Field(ge=8)
    widths: tuple[int, ...] = (16, 32, 64)
    num_classes: int = Field(10, ge=2)

    @property
    def dim(self) -> int:
        """The length of the feature vector, which is the last width."""
        return self.widths[-1]


class Classifier(nn.Module):
    """A small convolutional classifier.

    Each block has two 3x3 convolutions with batch norm and ReLU. Average pooling separates the blocks. The features are
    the spatial mean of the last block, and a linear layer maps them to the logits.
    """

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__()
        self.config = config
        layers: list[nn.Module] = []
        before = config.channels
        for index, width in enumerate(config.widths):
            layers += [nn.AvgPool2d(2)] if index else []
            for channels in (before, width):
                layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            before = width
        self.blocks = nn.Sequential(*layers)
        self.head = nn.Linear(before, config.num_classes)

    def prepare(self, images: Tensor) -> Tensor:
        """Resize uint8 (B, C, H, W) of any size to float (B, C, size, size) in [-1, 1], bilinear with antialiasing.

        Raises:
            ValueError: If the number of channels differs from the classifier's.
        """
        config = self.config
        if images.shape[1] != config.channels:
            raise ValueError(
                f"images of {images.shape[1]} channels: this classifier takes {config.channels}; choose another "
                f"protocol.extractor (shipped: {', '.join(EXTRACTORS)}), or module:attribute of your own"
            )
        x = images.to(self.head.weight.dtype) / 127.5 - 1
        if x.shape[-2:] != (config.size, config.size):
            x = F.interpolate(x, (config.size, config.size), mode="bilinear", antialias=True)
        return x

    def features(self, images: Tensor) -> Tensor:
        """Return the features (B, dim) of uint8 images (B, C, H, W)."""
        return self.features_of(self.prepare(images))

    def features_of(self, x: Tensor) -> Tensor:
        """Return the features (B, dim) of prepared images (B, C, size, size) in [-1, 1]."""
        out: Tensor = self.blocks(x).mean((2, 3))
        return out

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (B, num_classes) of prepared images (B, C, size, size) in [-1, 1]."""
        logits: Tensor = self.head(self.features_of(x))
        return logits


class _Features(nn.Module):
    """A classifier's features as a module, so that an Extractor can move it between devices."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier.features(images)


def digits() -> Extractor:
    """Return the extractor of handwritten digits (d = 64)."""
    return _shipped("digits")


def mnist() -> Extractor:
    """Return the extractor of MNIST (d = 64)."""
    return _shipped("mnist")


def cifar10() -> Extractor:
    """Return the extractor of CIFAR-10 (d = 96), for small colour images.

    FID as an objective needs 384 images with it, and 8,192 with Inception.
    """
    return _shipped("cifar10")


@cache
def _shipped(name: str) -> Extractor:
    """Return a shipped extractor, read once in the life of a process. Nothing changes its weights."""
    return load_classifier(name)


def load_classifier(name: str, folder: Path = WEIGHTS) -> Extractor:
    """Return the extractor of folder/NAME.safetensors. It raises the errors of `load_network`."""
    classifier, sha256 = load_network(name, folder)
    return wrap(name, classifier, sha256)


def wrap(name: str, classifier: Classifier, sha256: str) -> Extractor:
    """Return the extractor of a classifier's features.

    Args:
        name: The extractor's name in the configuration.
        sha256: The SHA-256 of the file of weights.
    """
    size = classifier.config.size
    return Extractor(name, _Features(classifier), classifier.config.dim, sha256, f"bilinear antialias to {size}x{size}")


def load_network(name: str, folder: Path = WEIGHTS) -> tuple[Classifier, str]:
    """Load the classifier of folder/NAME.safetensors and check the file against folder/NAME.json.

    Returns:
        The classifier, and the SHA-256 of the file of weights.

    Raises:
        ValueError: If a file is missing, or the SHA-256 differs from the stated SHA-256, so that the stated accuracy
            belongs to other weights.
    """
    weights, card = folder / f"{name}.safetensors", folder / f"{name}.json"
    for path in (weights, card):
        if not path.is_file():
            raise ValueError(f"extractor {name!r}: {path} is missing. Install coldtune again, or train it anew")
    stated = json.loads(card.read_text(encoding="utf-8"))
    data = weights.read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    if sha256 != stated["sha256"]:
        raise ValueError(
            f"extractor {name!r}: {weights} has SHA-256 {sha256}, its JSON states {stated['sha256']}: the file is "
            f"damaged or was replaced. Install coldtune again, or train it anew"
        )
    classifier = Classifier(ClassifierConfig.model_validate(stated["network"]))
    classifier.load_state_dict(load(data))
    return classifier.eval(), sha256


def accuracy(classifier: Classifier, images: Tensor, labels: Tensor) -> float:
    """Return the share of uint8 images (N, C, H, W) whose largest logit belongs to their label."""
    classifier.eval()
    with torch.no_grad():
        hits = [
            (classifier(classifier.prepare(x)).argmax(1) == y).sum()
            for x, y in zip(torch.split(images, 512), torch.split(labels, 512), strict=True)
        ]
    return float(torch.stack(hits).sum()) / len(labels)

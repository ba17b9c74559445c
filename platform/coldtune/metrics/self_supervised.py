"""Training of a feature extractor on images without labels, by contrasting two views of each image (SimCLR).

The views are windows at whole pixels, of another brightness and contrast. Nothing in them is interpolated, blurred or
noisy. A network that learns to overlook such changes could not judge restored images.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from coldtune.metrics.classifiers import Classifier, ClassifierConfig

PROJECTION = 64
"""The number of outputs of the network's head, in which views are compared. Judging uses the features before it."""
BATCH = 128
_WINDOW = 0.75  # of the image's side
_JITTER = 0.2
_TEMPERATURE = 0.2


def train_self_supervised(
    network: ClassifierConfig,
    images: Tensor,
    epochs: int,
    seed: int = 0,
    lr: float = 2e-3,
    weight_decay: float = 0.05,
    advance: Callable[[float], None] = lambda steps: None,
) -> Classifier:
    """Train a network whose features tell images apart and agree on the views of an image.

    Args:
        network: Its head must have `PROJECTION` outputs.
        images: uint8 (N, C, H, W), with N >= 2.
        advance: Called with the number of steps that were just done.
    """
    assert network.num_classes == PROJECTION, network
    torch.manual_seed(seed)
    classifier = Classifier(network)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=lr, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=count_steps(len(images), epochs))
    for _ in range(epochs):
        classifier.train()
        for rows in _batches(len(images), generator):
            batch = classifier.prepare(images[rows])
            first, second = (
                F.normalize(classifier(view), dim=1)
                for view in (make_view(batch, generator), make_view(batch, generator))
            )
            similarity = first @ second.mT / _TEMPERATURE
            own = torch.arange(len(rows))
            loss = F.cross_entropy(similarity, own) + F.cross_entropy(similarity.mT, own)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            advance(1)
    return classifier.eval()


def count_steps(images: int, epochs: int) -> int:
    """Return the number of steps of a training."""
    return epochs * math.ceil(images / min(BATCH, images))


def make_view(x: Tensor, generator: torch.Generator) -> Tensor:
    """Return a random window of each image (B, C, H, W) in [-1, 1], with another brightness and contrast.

    Returns:
        (B, C, h, w), with h and w three quarters of H and W. Values may leave [-1, 1] a little.
    """
    height, width = (max(round(_WINDOW * side), 1) for side in x.shape[-2:])
    rows, columns = (
        torch.randint(0, side - window + 1, (len(x),), generator=generator).tolist()
        for side, window in ((x.shape[-2], height), (x.shape[-1], width))
    )
    windows = [image[:, r : r + height, c : c + width] for image, r, c in zip(x, rows, columns, strict=True)]
    contrast, brightness = (torch.rand(2, len(x), 1, 1, 1, generator=generator) * 2 - 1) * _JITTER
    changed: Tensor = torch.stack(windows) * (1 + contrast) + brightness
    return changed


def _batches(count: int, generator: torch.Generator) -> list[Tensor]:
    """Return the rows of each batch of an epoch. All batches are almost equally large, because they are contrasted."""
    order = torch.randperm(count, generator=generator)
    return list(torch.tensor_split(order, math.ceil(count / min(BATCH, count))))

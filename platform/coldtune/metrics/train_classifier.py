"""Train one of the shipped classifiers: `python -m coldtune.metrics.train_classifier digits --out DIR`.

Writes DIR/NAME.safetensors and DIR/NAME.json (SHA-256, data, training, accuracy on the test split). It trains on the
training split only, and the recipe is fixed beforehand, so validation and test images have no influence on the weights.
It uses one thread and one seed, so the same machine with the same torch writes the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor
from torch.nn import functional as F

from coldtune.config import plain
from coldtune.metrics.classifiers import WEIGHTS, Classifier, ClassifierConfig, accuracy

BATCH = 64


@dataclass(frozen=True)
class Recipe:
    """The dataset, the network and the training of a classifier.

    Attributes:
        shift: Images are moved by up to this many whole pixels. Interpolation would blur them, and the classifier would
            learn to overlook blur.
        photos: True fills the border that a shift uncovers with the mirrored image instead of the darkest value, and
            mirrors half of the images from left to right.
        reflect: True fills the border with the mirrored image too, but mirrors no image.
        bfloat16: Computes convolutions in bfloat16 while training, which is twice as fast.
    """

    dataset: str
    network: ClassifierConfig
    epochs: int
    shift: int
    lr: float = 2e-3
    weight_decay: float = 0.05
    photos: bool = False
    bfloat16: bool = False
    reflect: bool = False


RECIPES = {
    "digits": Recipe("digits", ClassifierConfig(channels=1, size=16), epochs=60, shift=1),
    "mnist": Recipe("mnist", ClassifierConfig(channels=1, size=32), epochs=8, shift=2),
    "cifar10": Recipe(
        "cifar10", ClassifierConfig(channels=3, size=32, widths=(32, 64, 96)), epochs=30, shift=4, photos=True,
        bfloat16=True,
    ),
}  # fmt: skip


def train(
    recipe: Recipe,
    images: Tensor,
    labels: Tensor,
    seed: int = 0,
    advance: Callable[[float], None] = lambda steps: None,
    report: Callable[[str], None] = lambda line: None,
) -> Classifier:
    """Train a classifier: AdamW, warm-up and one cosine cycle.

    Args:
        images: uint8 (N, C, H, W).
        labels: int64 (N,).
        seed: The seed of the weights and the batches.
        advance: Called with the number of steps that were just done.
        report: Called with a line after each epoch.
    """
    torch.manual_seed(seed)
    classifier = Classifier(recipe.network)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay)
    steps = recipe.epochs * math.ceil(len(images) / BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.lr, total_steps=steps)
    for epoch in range(recipe.epochs):
        classifier.train()
        losses = []
        for rows in torch.split(torch.randperm(len(images), generator=generator), BATCH):
            batch = shifted(classifier.prepare(images[rows]), recipe.shift, generator, recipe.photos or recipe.reflect)
            batch = mirrored(batch, generator) if recipe.photos else batch
            if recipe.bfloat16:
                batch = batch.contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16, enabled=recipe.bfloat16):
                loss = F.cross_entropy(classifier(batch), labels[rows])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            losses.append(loss.detach())
            advance(1)
        report(f"epoch {epoch + 1}/{recipe.epochs}: loss {float(torch.stack(losses).mean()):.4f}")
    return classifier.eval()


def shifted(x: Tensor, largest: int, generator: torch.Generator, reflect: bool = False) -> Tensor:
    """Return each image (B, C, H, W) moved by whole pixels, uniform in -largest..largest.

    The uncovered border is filled with the darkest value, -1, or with the image mirrored at its edge (`reflect`).
    """
    height, width = x.shape[-2:]
    padded = F.pad(x, (largest,) * 4, mode="reflect") if reflect else F.pad(x, (largest,) * 4, value=-1.0)
    offsets = torch.randint(0, 2 * largest + 1, (len(x), 2), generator=generator).tolist()
    return torch.stack([image[:, r : r + height, c : c + width] for image, (r, c) in zip(padded, offsets, strict=True)])


def mirrored(x: Tensor, generator: torch.Generator) -> Tensor:
    """Return each image (B, C, H, W), mirrored from left to right with probability 1/2."""
    return torch.where(torch.rand(len(x), generator=generator)[:, None, None, None] < 0.5, x.flip(-1), x)


def write(name: str, classifier: Classifier, facts: dict[str, object], out: Path) -> None:
    """Write the weights, and the JSON that states their hash, their network and `facts`."""
    out.mkdir(parents=True, exist_ok=True)
    data = save({key: tensor.contiguous() for key, tensor in classifier.state_dict().items()})
    (out / f"{name}.safetensors").write_bytes(data)
    card = {"name": name, "sha256": hashlib.sha256(data).hexdigest(), "network": plain(classifier.config), **facts}
    (out / f"{name}.json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Prepare the data, train the classifier, measure its accuracy and write it."""
    from coldtune.data import DataConfig, prepare

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=sorted(RECIPES))
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="folder for the weights (default: the package's own)")
    parser.add_argument("--home", type=Path, default=Path("runs"), help="folder of prepared data (default: ./runs)")
    parser.add_argument("--data-dir", type=Path, help="folder of the dataset's original files")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    recipe = RECIPES[arguments.name]
    torch.set_num_threads(1)

    config = DataConfig(name=recipe.dataset, image_size=recipe.network.size)
    dataset = prepare(config, arguments.home, arguments.data_dir)
    splits = {name: dataset.split(name) for name in ("train", "validation", "test")}
    report = partial(print, flush=True)
    classifier = train(recipe, splits["train"].images, splits["train"].labels, arguments.seed, report=report)
    measured = {name: round(accuracy(classifier, split.images, split.labels), 5) for name, split in splits.items()}
    facts: dict[str, object] = {
        "accuracy": measured,
        "images": {name: len(split.images) for name, split in splits.items()},
        "dataset": {**plain(config), "fingerprint": dataset.fingerprint},
        "training": {
            "epochs": recipe.epochs, "batch_size": BATCH, "lr": recipe.lr, "weight_decay": recipe.weight_decay,
            "shift": recipe.shift, "photos": recipe.photos, "bfloat16": recipe.bfloat16, "seed": arguments.seed,
            "torch": torch.__version__,
        },
    }  # fmt: skip
    write(arguments.name, classifier, facts, arguments.out)
    print(f"{arguments.name}: accuracy {measured}, written to {arguments.out}")


if __name__ == "__main__":
    main()

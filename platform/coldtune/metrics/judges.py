"""Judges of a home: feature extractors that were trained on a dataset of the user's own.

A judge is a pair of files in the folder `judges` of the home, named by the SHA-256 of the weights: the weights
(safetensors), and a card (JSON) that states the data, the training and the scores on images that were held out. In a
configuration it is called `judge.` and the first 12 digits of that SHA-256.
"""

from __future__ import annotations

import hashlib
import re
import shlex
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load, save

from coldtune import environment
from coldtune.config import Config
from coldtune.data import Dataset
from coldtune.errors import describe_os_error
from coldtune.files import write_file
from coldtune.metrics.classifiers import Classifier, ClassifierConfig, wrap
from coldtune.metrics.extractors import Extractor
from coldtune.readback import UnreadableError, read_bytes, read_model

FOLDER = "judges"
IMAGES_PER_DIM = 4
"""The images for each feature that FID as an objective needs (`check_objective`)."""
PREFIX = "judge."
_DIGITS = 12
_NAME = re.compile(rf"{re.escape(PREFIX)}([0-9a-f]{{{_DIGITS},64}})")
_LARGEST_BYTES = 1 << 28
_INCEPTION_IMAGES = IMAGES_PER_DIM * 2048
_HINT = "Train the judge again with `coldtune data train-judge`, or restore its two files."

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Share = Annotated[float, Field(ge=0, le=1)]


class JudgedData(Config):
    """The data that a judge was trained on.

    Attributes:
        name: The dataset's name.
        fingerprint: The dataset's fingerprint.
        labels: The SHA-256 of the labels of the training split. None if they were not used.
        classes: The names of the classes. Empty if labels were not used, or have no names.
        train: The number of images of the training split, on which the judge was trained.
        held_out: The number of images on which it was scored.
    """

    name: str
    image_shape: tuple[int, int, int]
    resize: str
    fingerprint: Sha256
    labels: Sha256 | None
    classes: tuple[str, ...]
    train: int = Field(ge=2)
    held_out: int = Field(ge=2)


class Scores(Config):
    """The scores of a judge on held-out images.

    Attributes:
        accuracy: The share of held-out images whose class it finds. None without labels.
        chance: The accuracy of always naming the class that is most frequent in training. None without labels.
        retrieval: With labels, the share of images whose nearest other image has their label. Without labels, the share
            of images of which a view is nearest to another view of the same image.
        pixels: The same score if the raw pixels are the features.
        blur: The Frechet distance between the held-out images and the same images, which are blurred more and more.
    """

    accuracy: Share | None
    chance: Share | None
    retrieval: Share
    pixels: Share
    blur: tuple[float, ...]

    def weaknesses(self) -> list[str]:
        """Return a sentence for each score that is no better than its baseline."""
        found = []
        if self.accuracy is not None and self.chance is not None and self.accuracy <= self.chance < 1:
            found.append(
                f"its accuracy ({self.accuracy:.1%}) is no better than always naming the most frequent class "
                f"({self.chance:.1%})"
            )
        if self.retrieval <= self.pixels < 1:
            found.append(
                f"its retrieval score ({self.retrieval:.1%}) is no better than that of raw pixels ({self.pixels:.1%})"
            )
        if list(self.blur) != sorted(set(self.blur)):
            found.append("its distance does not grow with blur, so it can prefer worse images")
        return found


class JudgeCard(Config):
    """What is known of a judge.

    Attributes:
        sha256: The SHA-256 of the file of weights.
        kind: `classifier` was trained on labels, `self-supervised` without labels.
        training: How it was trained. Two trainings with equal data and equal values here have equal weights on a
            machine.
    """

    format: Literal["coldtune-judge-1"] = "coldtune-judge-1"
    sha256: Sha256
    kind: Literal["classifier", "self-supervised"]
    network: ClassifierConfig
    data: JudgedData
    scores: Scores
    training: dict[str, Any]

    @property
    def name(self) -> str:
        """The judge's name in a configuration (`protocol.extractor`)."""
        return f"{PREFIX}{self.sha256[:_DIGITS]}"

    def describe(self) -> list[str]:
        """Return what the judge is and what its scores are, in lines."""
        data, scores = self.data, self.scores
        shape = "x".join(map(str, data.image_shape))
        how = "without labels" if self.kind == "self-supervised" else f"in {self.network.num_classes} classes"
        nearest = "whose nearest neighbour has their class" if data.labels else "that are found again by another view"
        source = f"{data.train:,} images of {data.name} ({shape}) {how}"
        lines = [f"{self.kind}, d = {self.network.dim}, trained on {source}"]
        if scores.accuracy is not None:
            lines.append(
                f"accuracy {scores.accuracy:.1%} on {data.held_out:,} held-out images (always the most frequent class: "
                f"{scores.chance:.1%})"
            )
        lines.append(f"retrieval {scores.retrieval:.1%} of held-out images {nearest} (raw pixels: {scores.pixels:.1%})")
        lines.append(f"distance to blurred images, more and more: {', '.join(f'{value:.3g}' for value in scores.blur)}")
        return lines


def find_judge(name: str, home: Path | None) -> Path:
    """Return the card of the judge called `name`.

    Raises:
        ValueError: If the home has no such judge, or several. The message lists its judges.
    """
    match = _NAME.fullmatch(name)
    if match is None or home is None:
        raise ValueError(
            f"extractor = {name!r}: the name of a judge is {PREFIX} and the first {_DIGITS} digits of its SHA-256, and "
            "it needs a home"
        )
    found = [path for path in card_files(home) if path.stem.startswith(match[1])]
    if len(found) != 1:
        there = ", ".join(f"{PREFIX}{path.stem[:_DIGITS]}" for path in card_files(home)) or "none"
        problem = "several judges begin so" if found else "no such judge"
        raise ValueError(
            f"extractor = {name!r}: {problem} in {home / FOLDER} (there are: {there}). Train one with `coldtune data "
            "train-judge`, or copy its two files there"
        )
    return found[0]


def load_judge(name: str, home: Path | None) -> Extractor:
    """Return the extractor of the judge called `name`.

    Raises:
        ValueError: If the home has no such judge, or its files are damaged. The message names the file.
    """
    card, classifier = read_judge(find_judge(name, home))
    return wrap(card.name, classifier.eval(), card.sha256)


def read_judge(path: Path) -> tuple[JudgeCard, Classifier]:
    """Read a judge by the path of its card. Raises ValueError, naming the file, if one of its two files is damaged."""
    card = read_card(path)
    weights = path.with_suffix(".safetensors")
    try:
        data = read_bytes(weights, limit=_LARGEST_BYTES, hint=_HINT)
    except FileNotFoundError:
        raise UnreadableError(f"{weights}: is missing. {_HINT}") from None
    if hashlib.sha256(data).hexdigest() != card.sha256:
        raise UnreadableError(f"{weights}: is damaged, because its SHA-256 is not its name. {_HINT}")
    classifier = Classifier(card.network)
    try:
        classifier.load_state_dict(load(data))
    except (SafetensorError, RuntimeError, ValueError) as error:
        first = str(error).strip().partition("\n")[0]
        raise UnreadableError(f"{weights}: does not fit the network in {path.name} ({first}). {_HINT}") from None
    return card, classifier


def read_card(path: Path) -> JudgeCard:
    """Read a card. Raises ValueError if it is damaged, or belongs to other weights than its name says."""
    card = read_model(path, JudgeCard, hint=_HINT)
    if card.sha256 != path.stem:
        raise UnreadableError(f"{path}: states the SHA-256 {card.sha256[:_DIGITS]}..., which is not its name. {_HINT}")
    return card


def cards(home: Path, fingerprint: str | None = None) -> list[JudgeCard]:
    """Return the cards of a home's judges, sorted by name. A judge of which a file is damaged is left out.

    Args:
        fingerprint: Return only the judges of the dataset with this fingerprint.
    """
    found = []
    for path in card_files(home):
        with suppress(ValueError, OSError):
            if fingerprint in (None, read_card(path).data.fingerprint):
                found.append(read_judge(path)[0])
    return found


def card_files(home: Path) -> list[Path]:
    """Return the files of the cards of a home's judges, sorted by name."""
    return sorted((home / FOLDER).glob("*.json"))


def hash_weights(classifier: Classifier) -> tuple[bytes, str]:
    """Return the content of a file of weights, and its SHA-256."""
    data = save({key: tensor.contiguous() for key, tensor in classifier.state_dict().items()})
    return data, hashlib.sha256(data).hexdigest()


def write_judge(home: Path, weights: bytes, card: JudgeCard) -> Path:
    """Write a judge into the home, the card last, and return the path of the card. An equal judge is replaced.

    Raises:
        ValueError: If the folder cannot be written.
    """
    folder = home / FOLDER
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_file(folder / f"{card.sha256}.safetensors", weights, durable=True)
        write_file(folder / f"{card.sha256}.json", card.model_dump_json(indent=2) + "\n", durable=True)
    except OSError as error:
        raise ValueError(f"{describe_os_error(error, folder)}.") from None
    return folder / f"{card.sha256}.json"


def advise(dataset: Dataset, place: Path | str | None = None, tried: str = "") -> str:
    """Return a sentence that says which judge a dataset of the user's own can use, or how to make one.

    Args:
        place: The folder or file of the images, if it is known. A home can hold several datasets of the same name.
        tried: The name of an extractor that was refused, so that it is no advice.
    """
    shape = "x".join(map(str, dataset.image_shape))
    known = cards(dataset.home, dataset.fingerprint)
    others = [card for card in known if not is_name_of(tried, card)]
    enough = [card for card in others if IMAGES_PER_DIM * card.network.dim <= dataset.sizes["validation"]]
    if others:
        names = " or ".join(f"protocol.extractor={card.name}" for card in enough or others)
        return f"Judges of this home were trained on these images: --set {names}"
    size, resize = dataset.image_shape[1], dataset.manifest.resize
    words = ["coldtune", "data", "train-judge", dataset.name, "--image-size", str(size)]
    if place is not None and (there := environment.expand_path(place, "--data-dir")).exists():
        words += ["--data-dir", str(there)]
    least = min(dataset.sizes["validation"], dataset.sizes["test"])
    inception = ", or set protocol.extractor=inception" if least >= _INCEPTION_IMAGES and tried != "inception" else ""
    words += [*(["--resize", resize] if resize != "bilinear" else []), "--home", str(dataset.home)]
    command = f"`{environment.runner()}{shlex.join(words)}`"
    if known:
        return f"{command} makes another judge, with fewer features by --dim{inception}"
    return (
        f"The images of {dataset.name!r} are {shape}, and no judge of this home was trained on them. {command} makes "
        f"one{inception}"
    )


def is_name_of(name: str, card: JudgeCard) -> bool:
    """Return True if a configuration calls this judge `name`."""
    match = _NAME.fullmatch(name)
    return match is not None and card.sha256.startswith(match[1])


def describe_foreign(name: str, dataset: Dataset) -> str:
    """Return a sentence if the extractor `name` is a judge that was trained on other images than the dataset's, or "".

    Its features may tell nothing about these images.
    """
    if _NAME.fullmatch(name) is None:
        return ""
    card = read_card(find_judge(name, dataset.home))
    if card.data.fingerprint == dataset.fingerprint:
        return ""
    other, own = ("x".join(map(str, shape)) for shape in (card.data.image_shape, dataset.image_shape))
    return (
        f"protocol.extractor = {name!r}: was trained on other images ({card.data.name}, {other}, data "
        f"{card.data.fingerprint[:12]}) than these ({dataset.name}, {own}, data {dataset.fingerprint[:12]}), so its "
        "distances may mean little here"
    )

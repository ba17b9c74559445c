"""Judges that are trained on a home's own images: training, scores, files, and their place in the protocol."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from coldtune.data import Dataset
from coldtune.metrics import ProtocolConfig, build_extractor, extract_features, resolve
from coldtune.metrics.extractors import check_name
from coldtune.metrics.judges import JudgeCard, Scores, advise, cards, describe_foreign
from coldtune.metrics.train_judge import check_training, choose_dim, choose_epochs, choose_kind, train_judge


def start(label: str, total: float | None, unit: str):
    return lambda done: None


def in_home(digits: Dataset, home: Path) -> Dataset:
    """Copy the digits into a home of its own, because a judge is written beside its dataset."""
    shutil.copytree(digits.path, home / "data" / digits.path.name)
    return Dataset.open(home / "data" / digits.path.name)


@pytest.fixture(scope="module")
def home(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return in_home(digits, tmp_path_factory.mktemp("judged"))


@pytest.fixture(scope="module")
def classifier(home: Dataset) -> JudgeCard:
    card, found = train_judge(home, start, classify=True, dim=16, epochs=3)
    assert not found
    return card


@pytest.fixture(scope="module")
def unlabelled(home: Dataset) -> JudgeCard:
    return train_judge(home, start, classify=False, dim=16, epochs=3, seed=5)[0]


def test_judge_of_labels_is_well_above_chance_on_held_out_images(home: Dataset, classifier: JudgeCard) -> None:
    scores = classifier.scores
    assert scores.accuracy > 0.3  # after 3 epochs; chance is 0.1
    assert scores.chance == pytest.approx(0.1, abs=0.05)
    assert classifier.data.held_out == home.sizes["validation"] + home.sizes["test"]
    assert list(scores.blur) == sorted(scores.blur)


def test_judge_without_labels_finds_views_again_more_often_than_pixels_do(unlabelled: JudgeCard) -> None:
    assert unlabelled.scores.retrieval > unlabelled.scores.pixels
    assert (unlabelled.scores.accuracy, unlabelled.data.labels) == (None, None)


def test_judge_extractor_has_its_hash_in_the_protocol(
    home: Dataset, classifier: JudgeCard, unlabelled: JudgeCard
) -> None:
    protocols = []
    for card in (classifier, unlabelled):
        extractor = build_extractor(card.name, home.home)
        assert extract_features(extractor, home.split("test").images[:3]).shape == (3, 16)
        protocols.append(resolve(ProtocolConfig(extractor=card.name), extractor, home))
        assert protocols[-1].extractor_sha256 == card.sha256
        check_name(card.name, home.home)
    assert protocols[0].key != protocols[1].key
    assert f"protocol.extractor={classifier.name}" in advise(home)


def test_judge_same_training_is_found_and_repeated_elsewhere_bit_for_bit(
    digits: Dataset, home: Dataset, unlabelled: JudgeCard, tmp_path: Path
) -> None:
    assert train_judge(home, start, classify=False, dim=16, epochs=3, seed=5) == (unlabelled, True)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        again, found = train_judge(in_home(digits, tmp_path), start, classify=False, dim=16, epochs=3, seed=5)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert (again, found) == (unlabelled, False)


@pytest.mark.parametrize("damage", ["weights", "no weights", "card", "other card", "other network"])
def test_judge_damaged_files_are_named_with_a_way_out(
    home: Dataset, classifier: JudgeCard, tmp_path: Path, damage: str
) -> None:
    shutil.copytree(home.home / "judges", tmp_path / "judges")
    weights = tmp_path / "judges" / f"{classifier.sha256}.safetensors"
    card = weights.with_suffix(".json")
    tree = json.loads(card.read_text())
    if damage == "weights":
        weights.write_bytes(weights.read_bytes()[:-1])
    elif damage == "no weights":
        weights.unlink()
    elif damage == "card":
        card.write_text("{")
    elif damage == "other card":
        card.write_text(json.dumps(tree | {"sha256": "0" * 64}))
    else:
        tree["network"]["widths"] = [4, 4]
        card.write_text(json.dumps(tree))
    with pytest.raises(ValueError, match=classifier.sha256) as caught:
        build_extractor(classifier.name, tmp_path)
    assert "train-judge" in str(caught.value)
    assert "\n" not in str(caught.value)
    # `train_judge` then trains it again, and no advice names it.
    others = {found.sha256 for found in cards(home.home)} - {classifier.sha256}
    assert {found.sha256 for found in cards(tmp_path)} == others


def test_advice_names_the_other_judges_that_fit_or_the_place_of_the_images(
    digits: Dataset, home: Dataset, classifier: JudgeCard, unlabelled: JudgeCard, tmp_path: Path
) -> None:
    both = advise(home)
    assert classifier.name in both
    assert unlabelled.name in both
    other = advise(home, tried=classifier.name)
    assert unlabelled.name in other
    assert classifier.name not in other
    fresh = in_home(digits, tmp_path)
    assert f"train-judge digits --image-size 16 --data-dir {tmp_path} --home" in advise(fresh, tmp_path)
    assert "--data-dir" not in advise(fresh, tmp_path / "gone")
    shutil.copytree(home.home / "judges", tmp_path / "judges")
    for file in (tmp_path / "judges").glob(f"{unlabelled.sha256}.*"):
        file.unlink()
    assert "makes another judge, with fewer features by --dim" in advise(fresh, tried=classifier.name)


def test_judge_of_other_images_is_told_before_a_study_uses_it(home: Dataset, classifier: JudgeCard) -> None:
    other = SimpleNamespace(name="own", home=home.home, image_shape=(3, 24, 24), fingerprint="f" * 64)
    said = describe_foreign(classifier.name, other)
    for part in (classifier.name, "digits, 1x16x16", home.fingerprint[:12], "own, 3x24x24", "f" * 12):
        assert part in said
    assert describe_foreign(classifier.name, home) == ""
    assert describe_foreign("digits", other) == ""


@pytest.mark.parametrize("name", ["judge.000000000000", "judge.0", "judge.x/../y", "judge."])
def test_judge_that_the_home_lacks_is_refused_with_those_it_has(
    home: Dataset, classifier: JudgeCard, name: str
) -> None:
    with pytest.raises(ValueError, match=r"^extractor = 'judge\."):
        build_extractor(name, home.home)
    with pytest.raises(ValueError, match=classifier.name):
        check_name("judge.000000000000", home.home)
    with pytest.raises(ValueError, match="needs a home"):
        build_extractor(classifier.name)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, []),
        ({"accuracy": 0.3}, ["no better than always naming"]),
        ({"retrieval": 0.4}, [r"retrieval score (40.0%) is no better than that of raw pixels (50.0%)"]),
        ({"retrieval": 0.5}, ["raw pixels"]),
        ({"retrieval": 1.0, "pixels": 1.0}, []),
        ({"blur": (1.0, 0.5, 2.0)}, ["does not grow with blur"]),
        ({"accuracy": None, "chance": None, "retrieval": 0.1}, ["raw pixels"]),
    ],
)
def test_scores_no_better_than_a_baseline_are_said(change: dict, said: list[str]) -> None:
    good = {"accuracy": 0.9, "chance": 0.3, "retrieval": 0.9, "pixels": 0.5, "blur": (0.1, 0.5, 2.0)}
    found = Scores(**(good | change)).weaknesses()
    assert len(found) == len(said)
    assert all(text in sentence for text, sentence in zip(said, found, strict=True))


def test_choices_follow_the_dataset(digits: Dataset) -> None:
    assert choose_kind(digits) == (True, "")
    assert choose_kind(digits, ignore_labels=True)[0] is False
    assert 4 * choose_dim(digits) <= min(digits.sizes["validation"], digits.sizes["test"])
    assert choose_epochs(1076, True) > choose_epochs(50_000, True) >= 1
    for flags in ((0, None, 0), (None, 0, 0), (None, None, -1), (10**6, None, 0)):
        with pytest.raises(ValueError, match=r"^--\w+ -?\d+: allowed: "):
            check_training(*flags)

"""Which fields of a training shape its trajectory, and the messages for wrong values."""

from __future__ import annotations

import pytest

from coldtune.config import digest, parse
from coldtune.training import TrainingConfig
from coldtune.yaml_files import parse_yaml


@pytest.mark.parametrize(
    "change",
    [{"steps": 7}, {"validate_every": 7}, {"validate_images": 7}, {"report_every": 7}, {"checkpoint_every": 7}],
)
def test_trajectory_changed_bookkeeping_is_same_training(change: dict[str, int]) -> None:
    assert digest(TrainingConfig(**change).trajectory()) == digest(TrainingConfig().trajectory())


@pytest.mark.parametrize(
    "change",
    [
        {"batch_size": 7},
        {"accumulate": 7},
        {"lr": 0.1},
        {"loss": "l2"},
        {"clip_norm": 1.0},
        {"ema_decay": 0.9},
        {"ema_every": 7},
        {"ema_warmup": False},
        {"seed": 7},
        {"dtype": "bfloat16"},
    ],
)
def test_trajectory_other_changed_field_is_another_training(change: dict[str, object]) -> None:
    assert digest(TrainingConfig.model_validate(change).trajectory()) != digest(TrainingConfig().trajectory())


def test_trajectory_and_bookkeeping_share_no_field_and_miss_none() -> None:
    shaping = set(TrainingConfig(ema_stds=(0.1,)).trajectory())  # neutral fields are left out
    assert shaping | TrainingConfig.BOOKKEEPING == set(TrainingConfig.model_fields)
    assert not shaping & TrainingConfig.BOOKKEEPING


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("steps", 0),
        ("batch_size", 0),
        ("lr", 0),
        ("lr", float("nan")),
        ("loss", "huber"),
        ("ema_decay", 1.0),
        ("seed", -1),
    ],
)
def test_training_config_wrong_value_names_key(key: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"training\.{key} = "):
        parse(TrainingConfig, {key: value}, "training")


def test_training_config_unknown_key_lists_allowed_keys() -> None:
    with pytest.raises(ValueError, match=r"training\.epochs.*batch_size"):
        parse(TrainingConfig, {"epochs": 3}, "training")


@pytest.mark.parametrize("written", ["off", "'off'", "auto"])
def test_training_config_compile_as_yaml_reads_it(written: str) -> None:
    """YAML reads the word `off` as false."""
    config = parse(TrainingConfig, {"compile": parse_yaml(written, "space")}, "training")
    assert config.compile == written.strip("'")


def test_training_config_compile_on_is_refused() -> None:
    with pytest.raises(ValueError, match=r"training\.compile = True: input should be 'off' or 'auto'"):
        parse(TrainingConfig, {"compile": parse_yaml("on", "space")}, "training")

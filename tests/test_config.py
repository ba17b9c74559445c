"""Configurations: fields that are added later change no key and no name of what was stored before them."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import pytest
from pydantic import Field, create_model

from coldtune import presets
from coldtune.config import Config, Neutral, digest, identity, parse, plain
from coldtune.data import Dataset, prepared
from coldtune.diffusion import build_degradation
from coldtune.diffusion.priors.registry import PRIORS
from coldtune.metrics import Protocol
from coldtune.stages.keys import measure_key, prior_key, sample_key, train_key
from coldtune.stages.trial import TrialConfig, parse_trial
from coldtune.studies.spec.build import build_spec

ROOT = Path(__file__).parents[1]
SPACES = sorted((ROOT / "search_spaces").glob("*.yaml"))


def all_configs(cls: type[Config] = Config) -> Iterator[type[Config]]:
    for found in cls.__subclasses__():
        if inspect.getmodule(found).__name__.startswith("coldtune."):
            yield found
            yield from all_configs(found)


class Later(Config):
    old: int = 1
    added: Annotated[str, Neutral("as before")] = "as before"


class Holder(Config):
    inner: Later | None = Later()
    several: tuple[Later, ...] = (Later(),)
    named: dict[str, Later] = Field(default_factory=lambda: {"a": Later()})


def test_identity_leaves_out_neutral_fields_at_every_depth() -> None:
    assert identity(Holder()) == {"inner": {"old": 1}, "several": [{"old": 1}], "named": {"a": {"old": 1}}}
    assert identity(Later(added="new")) == {"old": 1, "added": "new"} == plain(Later(added="new"))
    assert digest(Later()) == digest({"old": 1}) != digest(Later(added="new"))


@pytest.mark.parametrize("cls", sorted(set(all_configs()), key=lambda cls: cls.__qualname__), ids=lambda c: c.__name__)
def test_config_neutral_value_is_the_default(cls: type[Config]) -> None:
    """A stored configuration lacks a later field, so the field's default must say what the configuration meant."""
    for name, field in cls.model_fields.items():
        for mark in field.metadata:
            if isinstance(mark, Neutral):
                assert field.default == mark.value, name


class Numbers(Config):
    whole: int = 1
    some: tuple[int, ...] = ()
    real: float = 1.0
    either: str | int = 1


def test_config_powers_of_ten_are_integers_only_where_an_integer_is_needed() -> None:
    read = parse(Numbers, {"whole": "1e3", "some": ["1.5E+1", 2], "real": "1e-3", "either": "1e3"})
    assert plain(read) == {"whole": 1000, "some": [15, 2], "real": 0.001, "either": "1e3"}
    for wrong in ("1e-1", "1.5e0", "1e300", "1e99", "e3", "1e3x"):
        with pytest.raises(ValueError, match=r"^whole = .*: input should be a valid integer"):
            parse(Numbers, {"whole": wrong})


SECTIONS = ("data", "restorer", "training", "sampler", "protocol", "rungs")


def add_field(cls: type[Config]) -> type[Config]:
    """Return `cls` with one more field, which has its neutral value."""
    return create_model(cls.__name__, __base__=cls, added=(Annotated[str, Neutral("as before")], "as before"))


@pytest.fixture(scope="module")
def digits(digits_home: Path) -> Dataset:
    return Dataset.open(prepared(digits_home, "digits")[0])


@pytest.fixture(scope="module")
def protocol() -> Protocol:
    return Protocol(
        extractor="digits", extractor_sha256="ab" * 32, extractor_input="8 bit", dim=64, dataset="digits",
        dataset_fingerprint="cd" * 32, image_shape=(1, 16, 16), resize="bilinear", split="test", num_images=358,
        reference_images=358, seed=0,
    )  # fmt: skip


def stage_keys(config: TrialConfig, dataset: Dataset, protocol: Protocol) -> list[str]:
    return [
        train_key(config, dataset),
        sample_key(config, dataset, config.sampler),
        sample_key(config, dataset, None),
        prior_key(config, dataset),
        measure_key("images", protocol),
        protocol.key,
        protocol.reference_key,
    ]


def with_prior() -> TrialConfig:
    return parse_trial({**presets.load("digits-quick"), "prior": {"kind": "gmm", "noise_scale": 0.1}})


def test_keys_field_added_to_every_section_leaves_all_keys(digits: Dataset, protocol: Protocol) -> None:
    config = with_prior()
    wider = config.model_copy(update={name: _widen(getattr(config, name)) for name in SECTIONS})
    assert all("added" in plain(getattr(wider, name)) for name in SECTIONS)
    assert stage_keys(wider, digits, _widen(protocol)) == stage_keys(config, digits, protocol)


def test_keys_field_added_to_degradations_and_priors_leaves_all_keys(
    digits: Dataset, protocol: Protocol, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = with_prior()
    before = stage_keys(config, digits, protocol)
    degradation, prior = type(build_degradation(config.degradation, digits.image_shape)), PRIORS[config.prior["kind"]]
    for owner in (degradation, prior):
        monkeypatch.setattr(owner, "config_type", add_field(owner.config_type))
    again = with_prior()
    assert again.prior["added"] == "as before"
    assert stage_keys(again, digits, protocol) == before


@pytest.mark.parametrize("space", SPACES, ids=lambda path: path.stem)
def test_study_name_field_added_to_every_section_stays(space: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = build_spec("job", space)
    for name in SECTIONS:
        field = TrialConfig.model_fields[name]
        monkeypatch.setattr(field, "annotation", add_field(field.annotation))
    base = {name: {**part, "added": "as before"} if name in SECTIONS else part for name, part in spec.base.items()}
    parts = {name: _widen(getattr(spec, name)) for name in ("space", "objective", "search", "pruning")}
    wider = spec.model_copy(update={**parts, "also": tuple(map(_widen, spec.also)), "base": base})
    assert plain(parse_trial(base).training) == base["training"]
    assert wider.name == spec.name
    assert not wider.differences(spec)
    other = wider.model_copy(update={"base": {**base, "training": {**base["training"], "added": "new"}}})
    assert other.name != spec.name
    assert len(other.differences(spec)) == 1


def _widen(config: Config) -> Config:
    return add_field(type(config)).model_validate(plain(config))

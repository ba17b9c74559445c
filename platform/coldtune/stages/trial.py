"""A trial's configuration: its data, degradation, training, sampler and protocol, a section for each owner."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, field_validator

from coldtune.config import Config, identity, join_problems, parse, plain, shorten
from coldtune.data import DataConfig
from coldtune.diffusion import build_degradation
from coldtune.diffusion.priors import build_prior, prior_config
from coldtune.diffusion.restorer import RestorerConfig, check_restorer
from coldtune.diffusion.samplers import SamplerConfig
from coldtune.dotted import leaves
from coldtune.metrics.protocol import LEAST_IMAGES, ProtocolConfig, Task
from coldtune.stages.weights import check_weights
from coldtune.training.config import TrainingConfig

_MOST_RUNGS = 1000


class RungConfig(Config):
    """When and how a trial is judged before its training has ended (`rungs:`).

    Each rung costs one sampling of `num_images` images with the trial's own sampler. Its checkpoint stays in the store.

    Attributes:
        steps: Steps of the training, ascending, all below training.steps. With () the trial is only judged at its end.
            At most 1,000, because each costs a sampling.
        metric: `kid` or `mind`. The expectation of KID is the same at any N, and it ranked trained restorers best at
            few images. MIND sees lost spread that KID hardly weighs, but its bias depends on that spread, so it needs
            N >= 4 d. FID is not offered, because below 4 d its bias grows with a model's spread and can exceed the
            difference between close models (benchmarks/2026-11-23-small-n-ranking.md).
        num_images: N, with the same images and draws for every trial. At most as many as the trial itself is judged on.
    """

    steps: tuple[int, ...] = ()
    metric: Literal["kid", "mind"] = "kid"
    num_images: int = Field(1000, ge=LEAST_IMAGES, le=100_000_000)

    @field_validator("steps")
    @classmethod
    def _ascending(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if list(value) != sorted(set(value)) or any(step < 1 for step in value):
            raise ValueError("must be ascending, each step once, from 1")
        if len(value) > _MOST_RUNGS:
            raise ValueError(f"{len(value):,} rungs, but at most {_MOST_RUNGS:,} are allowed")
        return value


class TrialConfig(Config):
    """The configuration of a trial: everything that determines its images and its numbers.

    Attributes:
        degradation: Kept as written, because its allowed keys depend on its kind. `check` builds it.
        prior: Where sampling starts. None, and `data` without noise, degrade the images of the protocol's split, so
            that each restored image has its original. Any other kind draws x_T: then protocol.num_images images are
            generated. They have no originals, so SSIM, RMSE and PSNR are not defined.
    """

    data: DataConfig = Field(default_factory=DataConfig)
    degradation: dict[str, Any]
    prior: dict[str, Any] | None = None
    restorer: RestorerConfig = Field(default_factory=RestorerConfig)
    training: TrainingConfig = Field(default_factory=TrainingConfig)
    sampler: SamplerConfig = Field(default_factory=SamplerConfig)
    protocol: ProtocolConfig = Field(default_factory=ProtocolConfig)
    rungs: RungConfig = Field(default_factory=RungConfig)

    @field_validator("degradation")
    @classmethod
    def _plain(cls, value: dict[str, Any]) -> dict[str, Any]:
        return dict(plain(value))

    @field_validator("prior")
    @classmethod
    def _resolved(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        return None if value is None else dict(plain(prior_config(value)))

    @property
    def task(self) -> Task:
        """`restored` if the images are restored from degraded images, `generated` if they start from a prior."""
        return "restored" if self.prior is None or self.prior["kind"] == "data" else "generated"

    def check(self, image_shape: tuple[int, int, int]) -> None:
        """Check that all parts fit the images and each other.

        Raises:
            ValueError: If a part does not fit, for example a kernel that is larger than the image. The message names
                the key.
        """
        d = build_degradation(self.degradation, image_shape)
        check_restorer(self.restorer, image_shape)
        self.sampler.check(d)
        build_prior(self.prior or {"kind": "data"}, d)
        if self.rungs.steps and self.rungs.steps[-1] >= self.training.steps:
            raise ValueError(
                f"rungs.steps = {self.rungs.steps}: all must be below training.steps = {self.training.steps}, at which "
                "the trial itself is judged"
            )
        check_weights(self.training, self.sampler, self.rungs.steps)


def identity_of_tree(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return a trial's configuration as nested mappings, without the fields that have their neutral value."""
    config = parse_trial(tree)
    written = identity(config)
    written["data"].pop("path", None)  # says where the images are, and the fingerprint says which they are
    if config.prior is not None:
        written["prior"] = identity(prior_config(config.prior))
    return dict(written)


def parse_trial(tree: Any) -> TrialConfig:
    """Build a trial's configuration from nested mappings.

    Raises:
        ValueError: If a key or value is wrong. The message is one line, which names the wrong keys by their dotted
            paths.
    """
    if not isinstance(tree, Mapping):
        raise ValueError(f"{shorten(tree)}: a trial's configuration must be a mapping of sections")
    sections = {name: field.annotation for name, field in TrialConfig.model_fields.items()}
    if unknown := sorted(set(tree) - set(sections)):
        raise ValueError(f"{unknown[0]}: unknown section; allowed: {', '.join(sections)}")
    parts: dict[str, Any] = {}
    problems: list[str] = []
    for name, section in sections.items():
        if name == "degradation" or name not in tree:
            continue
        try:
            parts[name] = _prior(tree[name]) if name == "prior" else parse(_config_type(section), tree[name], name)
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise ValueError(join_problems(problems))
    if "degradation" not in tree:
        raise ValueError("degradation: required, a mapping with `kind`, but missing")
    if not isinstance(tree["degradation"], Mapping):
        raise ValueError(f"degradation = {shorten(tree['degradation'])}: must be a mapping with `kind`")
    for key, value in leaves(tree["degradation"]):
        if isinstance(value, float) and not math.isfinite(value):  # JSON would make it null
            raise ValueError(f"degradation.{key} = {value}: input should be a finite number")
    return TrialConfig(degradation=dict(tree["degradation"]), **parts)


def _config_type(section: Any) -> type[Config]:
    assert isinstance(section, type)
    assert issubclass(section, Config)
    return section


def _prior(tree: Any) -> dict[str, Any] | None:
    if tree is not None and not isinstance(tree, Mapping):
        raise ValueError(f"prior = {shorten(tree)}: must be a mapping with `kind`, or absent")
    return None if tree is None else dict(plain(prior_config(tree)))


TRAINING_SEED = "training.seed"
"""The dotted key of the seed of a training."""

VARIANT = "variant"
"""The short name, in points, tables and runs, of the key that says which of a study's variants a trial is."""

# The paper's letters and the field's words, for keys whose last part alone is ambiguous.
SHORT_NAMES = {
    "data.name": "dataset",
    "data.path": "data_path",
    "degradation.kind": "degradation",
    "degradation.steps": "T",
    "degradation.kernel_size": "kernel",
    "degradation.sigma.schedule": "schedule",
    "degradation.sigma.start": "start",
    "degradation.sigma.rate": "rate",
    "degradation.beta.start": "beta_start",
    "degradation.beta.step": "beta_step",
    "degradation.threshold.start": "threshold_start",
    "degradation.threshold.end": "threshold_end",
    "degradation.motion_sigma.start": "motion_start",
    "degradation.motion_sigma.end": "motion_end",
    "restorer.size": "restorer",
    "restorer.index": "restorer_index",
    "training.steps": "train_steps",
    "training.batch_size": "batch",
    TRAINING_SEED: "train_seed",
    "sampler.algorithm": "sampler",
    "sampler.schedule": "sampler_schedule",
    "prior.kind": "prior",
    "protocol.seed": "protocol_seed",
    "protocol.num_images": "N",
    "protocol.draws": "protocol_draws",
    "rungs.steps": "rungs",
    "rungs.metric": "rung_metric",
    "rungs.num_images": "rung_N",
}


def short_name(path: str) -> str:
    """Return the name of a dotted key in tables, MLflow and Optuna. It is short and the same in every study."""
    if path in SHORT_NAMES:
        return SHORT_NAMES[path]
    return path.rpartition(".")[2]


def flat(config: TrialConfig) -> dict[str, Any]:
    """Return all values of a trial under their short names, for MLflow's parameters."""
    return {short_name(path): value for path, value in leaves(plain(config))}

"""A trial's configuration: what is trained, how it samples and how it is judged, one section for each owner."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, field_validator

from coldtune.config import Config, parse, plain
from coldtune.data import DataConfig
from coldtune.diffusion import build_degradation
from coldtune.diffusion.priors import build_prior, prior_config
from coldtune.diffusion.restorer import RestorerConfig
from coldtune.diffusion.samplers import SamplerConfig
from coldtune.dotted import leaves
from coldtune.metrics.protocol import LEAST_IMAGES, ProtocolConfig, Task
from coldtune.training.config import TrainingConfig


class RungConfig(Config):
    """When and how a trial is judged before its training has ended (`rungs:`).

    steps: of the training, ascending, all below training.steps; () judges at the end only. A rung costs one sampling of
      `num_images` images with the trial's own sampler; its checkpoint stays in the store.
    metric: `kid`, whose expectation is the same at any N and which ranked trained restorers best at few images, or
      `mind`, which sees lost spread that KID hardly weighs, but whose bias depends on that spread: give it N >= 4 d.
      Not FID: below 4 d its bias grows with a model's spread and can exceed the difference of close models
      (benchmarks/2026-11-23-small-n-ranking.md).
    num_images: N, the same images and draws for every trial; at most as many as the trial itself is judged on.
    """

    steps: tuple[int, ...] = ()
    metric: Literal["kid", "mind"] = "kid"
    num_images: int = Field(1000, ge=LEAST_IMAGES)

    @field_validator("steps")
    @classmethod
    def _ascending(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if list(value) != sorted(set(value)) or any(step < 1 for step in value):
            raise ValueError("must be ascending, each step once, from 1")
        return value


class TrialConfig(Config):
    """One point of a study, resolved: everything that determines its images and its numbers.

    `degradation` is kept as written (its allowed keys depend on its kind); `check` builds it. prior: where sampling
    starts; None, and `data` without noise, degrade the images of the protocol's split, so that each restored image has
    its original. Any other kind draws x_T: images are generated, as many as protocol.num_images, and have no originals,
    so SSIM, RMSE and PSNR are not defined.
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
        """Whether its images are restored from degraded ones, or generated from a prior."""
        return "restored" if self.prior is None or self.prior["kind"] == "data" else "generated"

    def check(self, image_shape: tuple[int, int, int]) -> None:
        """ValueError naming the key where a part does not fit the images (a kernel larger than the image, ...)."""
        d = build_degradation(self.degradation, image_shape)
        self.sampler.check(d)
        build_prior(self.prior or {"kind": "data"}, d)
        if self.rungs.steps and self.rungs.steps[-1] >= self.training.steps:
            raise ValueError(
                f"rungs.steps = {self.rungs.steps}: all must be below training.steps = {self.training.steps}, at which "
                "the trial itself is judged"
            )


def parse_trial(tree: Mapping[str, Any]) -> TrialConfig:
    """A trial's configuration from nested mappings; ValueError a line for each wrong key, by its dotted place."""
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
        raise ValueError("\n".join(problems))
    if not isinstance(tree.get("degradation"), Mapping):
        raise ValueError("degradation: required, a mapping with `kind`, and missing")
    return TrialConfig(degradation=dict(tree["degradation"]), **parts)


def _config_type(section: Any) -> type[Config]:
    assert isinstance(section, type)
    assert issubclass(section, Config)
    return section


def _prior(tree: Any) -> dict[str, Any] | None:
    if tree is not None and not isinstance(tree, Mapping):
        raise ValueError(f"prior = {tree!r}: must be a mapping with `kind`, or absent")
    return None if tree is None else dict(plain(prior_config(tree)))


VARIANT = "variant"
"""The short name, in points, tables and runs, of which of a study's variants a trial is."""

# The paper's letters and the field's words, for keys whose last part alone says too little or stands twice.
SHORT_NAMES = {
    "data.name": "dataset",
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
    "training.seed": "train_seed",
    "sampler.algorithm": "sampler",
    "prior.kind": "prior",
    "protocol.seed": "protocol_seed",
    "protocol.num_images": "N",
    "rungs.steps": "rungs",
    "rungs.metric": "rung_metric",
    "rungs.num_images": "rung_N",
}


def short_name(path: str) -> str:
    """The name of a dotted key in tables, MLflow and Optuna: short and flat, the same in every study."""
    if path in SHORT_NAMES:
        return SHORT_NAMES[path]
    return path.rpartition(".")[2]


def flat(config: TrialConfig) -> dict[str, Any]:
    """All of a trial's values under their short names, for MLflow's parameters."""
    return {short_name(path): value for path, value in leaves(plain(config))}

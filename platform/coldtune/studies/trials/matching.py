"""Finding the point of a study's space that means the same as a trial of another study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from coldtune.config import parse, plain
from coldtune.data import Dataset
from coldtune.diffusion import build_degradation, source_of
from coldtune.dotted import get_key, leaves
from coldtune.metrics.protocol import Protocol
from coldtune.metrics.values import difference
from coldtune.stages.compute import Compute
from coldtune.stages.keys import measure_key, sample_key
from coldtune.stages.trial import TrialConfig
from coldtune.studies.space.config import VARIANT, InfeasibleError
from coldtune.studies.space.distributions import contains, describe_distribution
from coldtune.studies.space.replicates import with_replicate
from coldtune.studies.space.space import Space
from coldtune.studies.spec.study import StudySpec
from coldtune.studies.storage.record import TrialRecord
from coldtune.studies.trials.replication import configure


class UnfitError(ValueError):
    """Raised if a trial cannot be imported. Its text is worded for several trials: `lie outside rate 0.01 to 0.1`."""


@dataclass(frozen=True)
class Importer:
    """The study that imports: its space, and everything else on which a value in it depends.

    Attributes:
        sources: The datasets that degradations draw from, by name.
        gpu: Whether its trials compute on a GPU.
        replicates: The trainings of each of its settings.
    """

    spec: StudySpec
    space: Space
    dataset: Dataset
    sources: Mapping[str, Dataset]
    protocol: Protocol
    gpu: bool = False
    replicates: int = 1

    @property
    def computes(self) -> Compute | None:
        """How the study's trials compute. None for a study of unknown threads, which takes all work as its own."""
        if self.gpu:
            return Compute(device="gpu")
        return None if self.spec.threads is None else Compute(device="cpu", threads=self.spec.threads)

    def result_key(self, trial: TrialConfig, steps: int | None = None, compute: Compute | None = None) -> str:
        """Return a key that is equal for trials with the same images under this study's protocol.

        Args:
            steps: The length of the training, instead of the trial's own.
            compute: How all stages of the trial computed. None stands for an unknown number of threads.
        """
        if steps is not None:
            trial = trial.model_copy(update={"training": trial.training.model_copy(update={"steps": steps})})
        source = source_of(trial.degradation)
        drawn_from = self.sources.get(source) if source else None
        images = sample_key(trial, self.dataset, trial.sampler, drawn_from, compute)
        return measure_key(images, self.protocol, compute)


@dataclass(frozen=True)
class SourceStudy:
    """A study from which trials are imported."""

    name: str
    spec: StudySpec
    space: Space
    trials: Sequence[FrozenTrial]


def finished_config(trial: FrozenTrial, source: SourceStudy, target: Importer) -> TrialConfig:
    """Return the configuration of a trial whose result can be imported.

    Raises:
        UnfitError: If the trial failed or has not ended, or if its values are not comparable with the target's values.
    """
    if trial.state == TrialState.FAIL:
        raise UnfitError("failed")
    if not trial.state.is_finished():
        raise UnfitError("had not ended")
    record = TrialRecord.of(trial)
    if (protocol := record.judged_under) and (parts := difference(protocol, target.protocol)):
        listed = ", ".join(f"{name} {theirs}, here {mine}" for name, (theirs, mine) in parts.items())
        raise UnfitError(f"were judged under another protocol ({listed})")
    computed = parse(Compute, record.computed, "computed") if record.computed else None
    if target.computes is not None and record.protocol is not None and computed != target.computes:
        how = computed.describe() if computed else "on an unknown number of threads"
        raise UnfitError(f"were computed {how}, here {target.computes.describe()}")
    config = configure(source.space, trial)
    stored_keys = [stage.key for stage in record.stages if stage.stage == "measure"]
    known = computed is None or target.computes is not None
    if stored_keys and known and stored_keys[0] != target.result_key(config, compute=computed):
        raise UnfitError("were made by another version of coldtune, or drew from other images")
    if trial.state == TrialState.PRUNED and not comparable_rungs(config, source, target):
        raise UnfitError("were pruned at other rungs, or by another objective")
    missing = [objective.metric for objective in target.spec.objectives if objective.metric not in record.metrics]
    if missing and trial.state == TrialState.COMPLETE:
        raise UnfitError(f"have no {', '.join(missing)}")
    return config


def comparable_rungs(config: TrialConfig, source: SourceStudy, target: Importer) -> bool:
    """Return whether the values of a trial at its rungs can be compared with those of the target's trials."""
    here = target.space.resolve(target.space.first)
    same_rungs = config.rungs == here.rungs and (
        config.protocol.without_further_draws() == here.protocol.without_further_draws()
    )
    return same_rungs and source.spec.objectives == target.spec.objectives


def matching_replicate(trial: TrialConfig, point: Mapping[str, Any], target: Importer) -> int:
    """Return which of the target's trainings at `point` has the training seed of `trial`.

    Returns:
        The replicate, or 0 if none of them has this seed.
    """
    replicate = trial.training.seed - target.space.resolve(point).training.seed
    return replicate if 0 < replicate < target.replicates else 0


def matching_point(trial: TrialConfig, target: Importer) -> dict[str, Any]:
    """Return the point of the target's space that means the same as `trial`. Only the length of training may differ.

    Every key that varies in the target's space takes the trial's value, whether or not it varied in the trial's study.

    Raises:
        UnfitError: If there is no such point. The message names the key in the way.
    """
    reasons = []
    for variant in target.space.config.variants or (None,):
        try:
            return _point_of_variant(trial, variant, target)
        except UnfitError as reason:
            reasons.append(reason)
    raise reasons[0] if len(reasons) == 1 else UnfitError("are none of the variants")


def _point_of_variant(trial: TrialConfig, variant: str | None, target: Importer) -> dict[str, Any]:
    written = target.space.with_defaults(plain(trial))

    def pick(name: str, distribution: BaseDistribution) -> Any:
        if name == VARIANT:
            return variant
        path = target.space.paths[name]
        value = get_key(written, path)
        if not contains(distribution, value):
            raise UnfitError(f"lie outside {path} {describe_distribution(distribution)}")
        return value

    point = target.space.walk(pick)
    try:
        here = with_replicate(target.space.resolve(point), matching_replicate(trial, point, target))
    except InfeasibleError as error:
        raise UnfitError(f"may not be asked here ({_constraint(error)})") from None
    except ValueError:
        raise UnfitError("are not valid here") from None
    if target.result_key(here, trial.training.steps) != target.result_key(trial):
        raise UnfitError(f"differ in {', '.join(_differences(trial, here, target)) or 'the images they draw from'}")
    return point


def _differences(trial: TrialConfig, here: TrialConfig, target: Importer) -> list[str]:
    """Return the keys in which two trials differ and that change their result, without the length of the training."""
    theirs, mine = (dict(leaves(_determining_keys(config, target))) for config in (trial, here))
    return [key for key in dict.fromkeys([*theirs, *mine]) if theirs.get(key) != mine.get(key)]


def _determining_keys(trial: TrialConfig, target: Importer) -> dict[str, Any]:
    tree: dict[str, Any] = {
        section: plain(getattr(trial, section)) for section in ("data", "restorer", "sampler", "protocol")
    }
    tree["degradation"] = plain(build_degradation(trial.degradation, target.space.image_shape).config)
    tree["prior"], tree["training"] = trial.prior or {}, trial.training.trajectory()
    return tree


def _constraint(error: InfeasibleError) -> str:
    """Return the constraint that a point violates, without the value of this point, so that equal reasons add up."""
    return str(error).partition(": ")[2] or "a derived value cannot be had"

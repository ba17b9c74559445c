"""What a study of several trainings can detect, judging by earlier trainings of the home."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.trial import TrialState

from coldtune.config import digest, identity
from coldtune.metrics.protocol import Protocol
from coldtune.metrics.registry import label
from coldtune.stages.trial import TrialConfig
from coldtune.studies.designs.effects import Group, effects_of_design
from coldtune.studies.space.config import VARIANT
from coldtune.studies.space.design import DesignRecord
from coldtune.studies.space.space import Space
from coldtune.studies.spec.folder import studies
from coldtune.studies.spec.study import StudySpec
from coldtune.studies.storage.record import TrialRecord
from coldtune.studies.trials.reading import StudyReader, read_study
from coldtune.training.config import TrainingConfig
from coldtune.verdicts.planning import detectable_difference, detectable_effect


@dataclass(frozen=True)
class Pilot:
    """How much the trainings of a setting differ.

    Attributes:
        sd: Their standard deviation, pooled over the settings.
        trainings: The number of trained networks behind it. Settings that share a network count it once.
        same: True if they are trainings of the settings that are asked about, and not of similar ones.
    """

    sd: float
    trainings: int
    same: bool


def find_pilot(home: Path, spec: StudySpec, space: Space, protocol: Protocol) -> Pilot | None:
    """Return how much trainings differed that the studies of a home have judged under the same protocol.

    Trainings of the study's own arms are taken if an arm has at least two, and those of all settings otherwise.
    None if no setting was trained twice.
    """
    metric = spec.objective.metric
    wanted = {_setting(space.resolve({VARIANT: name})) for name in space.config.variants}
    found: dict[str, dict[str, float]] = {}
    for folder in studies(home):
        try:
            for setting, network, value in _trainings(read_study(folder), metric, protocol):
                found.setdefault(setting, {})[network] = value
        except (ValueError, OSError):  # a study that cannot be read tells nothing
            continue
    own = _pool((values for setting, values in found.items() if setting in wanted), same=True)
    return own or _pool(found.values(), same=False)


def describe_detectable(spec: StudySpec, pilot: Pilot | None, replicates: int) -> list[str]:
    """Return sentences about the difference that a design detects with 80 % power.

    Args:
        replicates: The trainings of each arm.
    """
    assert spec.design is not None
    metric, arms = label(spec.objective.metric), len(spec.design.arms)
    if pilot is None:
        return [
            f"no setting was trained twice in this home, so the {metric} difference that {_trainings_each(replicates)} "
            "detect is not known. Train the base a few times first, for example with --replicates 5"
        ]
    of = "of these arms" if pilot.same else "of other settings"
    known = f"sd {pilot.sd:.3g} of {pilot.trainings} earlier trainings {of}"
    against_base = "base" in spec.comparisons.family
    comparisons = arms - 1 if against_base else math.comb(arms, 2)
    size = detectable_difference(pilot.sd, replicates, comparisons=comparisons)
    if not math.isfinite(size):
        return [f"{_trainings_each(replicates)} are too few for verdicts about settings ({known}). Take 3 or more"]
    between = "an arm and the reference" if against_base else "the best arm and another"
    sentences = [
        f"{_trainings_each(replicates)} detect a {metric} difference of {_rounded(size)} between {between} "
        f"with 80 % power ({known}). Arms that share their trainings detect smaller differences"
    ]
    if spec.race is not None:  # it looks often, and gives effects no intervals
        return [*sentences, "a race detects a little less, because it looks after each training"]
    return [*sentences, *_describe_effects(spec.design, pilot.sd, replicates)]


def _describe_effects(design: DesignRecord, sd: float, replicates: int) -> list[str]:
    """Return a sentence about the size of effects that a design with interactions detects. Empty for other designs."""
    if not design.kind.interactions:
        return []
    effects = [effect for effect in effects_of_design(design) if effect.weights]
    comparisons = len({effect.question for effect in effects})
    sizes: dict[Group, list[float]] = {"effect": [], "interaction": []}
    for effect in effects:
        weights = list(effect.weights.values())
        sizes[effect.group].append(detectable_effect(sd, replicates, weights, comparisons=comparisons))
    said = [
        f"{name} from {_rounded(max(found))} on"
        for name, found in (("the effect of a level", sizes["effect"]), ("an interaction", sizes["interaction"]))
        if found
    ]
    count = f"{comparisons} effect{'s' * (comparisons > 1)}"
    return [f"all arms together detect {' and '.join(said)}, adjusted for {count}"] if said else []


def _rounded(size: float) -> str:
    """Return a size with two digits, and without an exponent if it is large."""
    return f"{float(f'{size:.2g}'):g}"


def _trainings_each(replicates: int) -> str:
    return f"{replicates} training{'s' * (replicates > 1)} of each"


def _trainings(reader: StudyReader, metric: str, protocol: Protocol) -> Iterator[tuple[str, str, float]]:
    """Yield the setting, the network and the value of each finished trial."""
    for trial in reader.trials():
        if trial.state != TrialState.COMPLETE:
            continue
        record = TrialRecord.of(trial)
        judged = record.judged_under
        network = next((stage.key for stage in record.stages if stage.stage == "train"), None)
        if network is None or judged is None or judged.key != protocol.key or metric not in record.metrics:
            continue
        yield _setting(reader.space.resolve(trial.params)), network, record.metrics[metric]


def _setting(config: TrialConfig) -> str:
    """Return a digest of a setting: all of a trial that changes its images, but the training seed."""
    tree: dict[str, Any] = dict(identity(config))
    ignored = {"seed", *(TrainingConfig.BOOKKEEPING - {"steps"})}
    tree["training"] = {key: value for key, value in tree["training"].items() if key not in ignored}
    return digest({key: value for key, value in tree.items() if key != "rungs"})


def _pool(groups: Iterable[Mapping[str, float]], *, same: bool) -> Pilot | None:
    several = [values for values in groups if len(values) > 1]
    if not several:
        return None
    freedom = sum(len(values) - 1 for values in several)
    squares = sum((len(values) - 1) * statistics.variance(values.values()) for values in several)
    return Pilot(math.sqrt(squares / freedom), len(set().union(*several)), same)

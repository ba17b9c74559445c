"""The settings of a study as verdicts see them: names, trainings with the influences of their images, and the base."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from coldtune.metrics import Judgement
from coldtune.metrics.registry import DISTANCES, IMAGE_SCORES
from coldtune.studies.search.sampler import listed_points
from coldtune.studies.space.config import VARIANT
from coldtune.studies.space.space import Space
from coldtune.studies.spec.study import StudySpec
from coldtune.studies.storage.record import TrialRecord
from coldtune.studies.storage.settings import Setting
from coldtune.studies.trials.replication import configure
from coldtune.verdicts import Family, SettingVariance, Split, Training, combine_variances
from coldtune.verdicts import Setting as Judgeable


@dataclass(frozen=True)
class JudgeableSettings:
    """The settings of a study that take part in its comparisons.

    Attributes:
        names: By number of a setting, its name in sentences.
        settings: The settings with their finished trainings.
        members: The names of all settings, also of points of a list that were not asked yet.
        base: The name of the base, or of the first variant. None if it was not asked yet.
        to_come: How many settings a search will ask that it has not chosen yet.
    """

    names: Mapping[int, str]
    settings: tuple[Judgeable, ...]
    members: tuple[str, ...]
    base: str | None
    to_come: int = 0

    def families(self, kinds: Sequence[str]) -> tuple[Family, ...]:
        """Return the families of these kinds. There is no family "base" before the base was asked."""
        families = []
        if "base" in kinds and self.base is not None:
            families.append(Family("base", self.members, self.base, to_come=self.to_come))
        if "best" in kinds:
            families.append(Family("best", self.members, to_come=self.to_come))
        return tuple(families)


class SettingsJudge:
    """Gathers the trainings of a study's settings. Each judgement is read from the store only once.

    Args:
        local_folder: Returns the local folder of an address in a trial's record.
        metric: The metric of the trainings. None takes the study's first objective.
        load: Reads a judgement from its folder.
    """

    def __init__(
        self,
        spec: StudySpec,
        space: Space,
        local_folder: Callable[[str], Path],
        metric: str | None = None,
        load: Callable[[Path], Judgement] = Judgement.load,
    ) -> None:
        self._spec, self._space, self._local_folder = spec, space, local_folder
        self._metric, self._load = metric or spec.objective.metric, load
        self._trainings: dict[int, Training] = {}  # by trial number
        self._points: list[dict[str, Any]] | None = None

    def gather(self, settings: Sequence[Setting], replicates: int, planned: int = 0) -> JudgeableSettings:
        """Return the settings of a study that take part in its comparisons.

        Args:
            settings: All settings of the study.
            replicates: The trainings that each setting has in the end. An imported setting needs all of them.
            planned: The number of settings that the study asks in all. Those that a search has not chosen yet belong to
                the family from the start, so the adjustment of a comparison does not depend on when it is shown.

        Raises:
            KeyError: If a trial was judged by a version that stored no judgement.
            OSError: If a judgement cannot be read.
            ValueError: If a judgement is no longer in the store, or the metric has no numbers for each image.
        """
        part = _compared(settings, replicates)
        names = {setting.number: name_of(setting) for setting in part}
        base = base_point(self._space)
        return JudgeableSettings(
            names,
            tuple(_alike([self.judgeable(each, names[each.number], replicates) for each in part])),
            (*names.values(), *self._not_asked(part)),
            next((names[setting.number] for setting in part if dict(setting.point) == base), None),
            0 if self._points else max(planned - sum(not each.imported for each in part), 0),
        )

    def split_others(self, settings: Sequence[Setting], replicates: int) -> dict[str, Split]:
        """Return the variance by source of every metric but the first objective, for the settings that are compared.

        A metric without numbers for each image is left out. One setting is read after the other, because the numbers of
        all metrics may need much memory.

        Args:
            settings, replicates: As in `gather`.
        """
        wanted = [metric for metric in (*DISTANCES, *IMAGE_SCORES) if metric != self._spec.objective.metric]
        parts: dict[str, list[SettingVariance]] = {metric: [] for metric in wanted}
        for setting in _compared(settings, replicates):
            load = functools.cache(Judgement.load)
            for metric in list(parts):
                judge = SettingsJudge(self._spec, self._space, self._local_folder, metric, load)
                try:
                    (judgeable,) = _alike([judge.judgeable(setting, "", replicates)])
                except (KeyError, OSError, ValueError):
                    del parts[metric]
                else:
                    parts[metric].append(SettingVariance.of(judgeable))
        return {metric: combine_variances(found) for metric, found in parts.items() if any(p.images for p in found)}

    def judgeable(self, setting: Setting, name: str, replicates: int) -> Judgeable:
        """Return what the verdicts need of a setting: the judgement of each training, or why it has no mean."""
        missing = ""
        for state, said in ((TrialState.PRUNED, "was pruned"), (TrialState.FAIL, "failed")):
            if ended := setting.in_state(state):
                missing = f"{said} ({len(ended)} of {replicates})"
                break
        if setting.finished and not setting.pruned:
            missing = ""
        trainings = [self._training(trial) for trial in setting.finished.values()]
        return Judgeable(name, () if missing else tuple(trainings), missing)

    def _training(self, trial: FrozenTrial) -> Training:
        if trial.number not in self._trainings:
            seed = configure(self._space, trial).training.seed
            read = read_training(trial, self._metric, seed, self._local_folder, load=self._load)
            self._trainings[trial.number] = read
        return self._trainings[trial.number]

    def _not_asked(self, settings: Sequence[Setting]) -> list[str]:
        """Return names for the points of a list that were not asked yet. They belong to the family from the start."""
        if self._points is None:
            self._points = listed_points(self._space, self._spec.search, self._spec.seed) or []
        asked = [dict(setting.point) for setting in settings]
        missing = [point for point in self._points if point not in asked]
        return [str(point.get(VARIANT, f"point {number}")) for number, point in enumerate(missing)]


def _compared(settings: Sequence[Setting], replicates: int) -> list[Setting]:
    """Return the settings that take part in the comparisons of a study."""
    return [each for each in settings if each.asked and (not each.imported or len(each.finished) >= replicates)]


def read_training(
    trial: FrozenTrial,
    metric: str,
    seed: int,
    local_folder: Callable[[str], Path],
    images: str = "sampled",
    load: Callable[[Path], Judgement] = Judgement.load,
) -> Training:
    """Return a finished training with its judgement from the store.

    Args:
        seed: The seed of the training.
        local_folder: Returns the local folder of an address in a trial's record.
        images: The set of images that is judged. Only the trial's own sampler (`sampled`) has values of further draws.
        load: Reads a judgement from its folder.

    Raises:
        KeyError: If the trial was judged by a version that stored no judgement.
        OSError: If the judgement cannot be read.
        ValueError: If the judgement is no longer in the store, or the metric has no numbers for each image.
    """
    record = TrialRecord.of(trial)
    training = Training.of(load(local_folder(record.measured[images])), metric, seed, network_of(trial))
    if images != "sampled":
        return training
    again = tuple(values[metric] for _, values in sorted(record.draws.items()) if metric in values)
    return replace(training, again=again)


def network_of(trial: FrozenTrial) -> str:
    """Return what names the trained network of a trial. It is equal for trials that differ in the sampler only."""
    record = TrialRecord.of(trial)
    if record.checkpoint:  # the place of the store may have changed, but not the name of the entry in it
        return "/".join(PurePosixPath(record.checkpoint).parts[-3:])
    trained = next((stage.key for stage in record.stages if stage.stage == "train"), None)
    return trained or f"trial {trial.number}"


def have_same_images(a: Setting, b: Setting) -> bool:
    """Return True if two settings gave the same images: those of the same networks, with all metrics equal bit for bit.

    This happens if the keys of two samplers differ by less than the sampler sees.
    """
    known = [
        [(network_of(trial), dict(TrialRecord.of(trial).metrics)) for trial in each.finished.values()]
        for each in (a, b)
    ]
    return bool(known[0]) and known[0] == known[1]


def name_of(setting: Setting) -> str:
    """Return the name of a setting in sentences: that of its variant, if nothing else varies."""
    point = setting.point
    if list(point) == [VARIANT] and setting.promoted_from is None:
        return str(point[VARIANT])
    return f"setting {setting.number}"


def _alike(settings: list[Judgeable]) -> list[Judgeable]:
    """Take the reference as fixed for all trainings, if it is for some. Judgements of earlier versions took it so."""
    if all(training.reference_influences is not None for setting in settings for training in setting.trainings):
        return settings
    return [
        replace(
            setting,
            trainings=tuple(replace(each, reference_influences=None, pairs=None) for each in setting.trainings),
        )
        for setting in settings
    ]


def base_point(space: Space) -> dict[str, Any]:
    """Return the point of the base, or of the first variant if a space lists variants."""
    variants = list(space.config.variants)
    return {VARIANT: variants[0]} if space.size is not None else dict(space.first)

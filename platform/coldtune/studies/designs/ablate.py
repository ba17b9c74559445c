"""The ablation of a finished search: from its best setting back to its base, one change at a time.

The trials are the settings of a path and each change alone on the base. They are the variants of an ordinary study,
which finds the trainings of the search in the store.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution

from coldtune import presets
from coldtune.config import parse, plain
from coldtune.dotted import get_key
from coldtune.environment import coldtune_command
from coldtune.stages.trial import TRAINING_SEED, VARIANT, TrialConfig, short_name
from coldtune.studies.space.config import InfeasibleError, SpaceConfig
from coldtune.studies.space.design import differences, meaning
from coldtune.studies.space.distributions import contains
from coldtune.studies.space.space import Point, Space
from coldtune.studies.spec.ablation import AblationRecord, Change, Step
from coldtune.studies.spec.build import change_base
from coldtune.studies.spec.folder import StudyFolder
from coldtune.studies.spec.study import StudySpec
from coldtune.studies.trials.reading import StudyReader

_LONGEST_NAME = 200  # characters of an arm's name
_BASE = "base"


def build_ablation(
    reader: StudyReader,
    folder: StudyFolder,
    *,
    trial: int | None = None,
    order: Sequence[str] = (),
    seed: int | None = None,
    settings: Sequence[str] = (),
    replicated: bool = False,
) -> StudySpec:
    """Return the spec of the study that takes a search's best setting back to its base.

    Args:
        reader: The search.
        folder: Its folder.
        trial: The number of the trial to take back. None means the best trial.
        order: Keys of the space, dotted or short, whose changes are taken back first. The others follow in the order
            of the space.
        seed: As for any study. None means the seed of the search.
        settings: Texts `key=value` as for any study. They change every trial.
        replicated: True if each arm will be trained several times. The study then chooses the training seeds, so a
            seed that the search varied is no change, with a warning.

    Raises:
        ValueError: If the search is not finished or searched nothing, or a key is not one of the changes.
    """
    _check_search(reader, folder, trial)
    number, best = _choose(reader, trial)
    spec, base = reader.spec, _base(reader.spec, seed, settings)
    space = Space(spec.space, base, presets.image_shape(base))
    walk = _Walk(space, best, space.first, left_out=[TRAINING_SEED] if replicated else [])
    changes = _ordered(walk.changes(), order)
    if walk.left_out and changes:
        warnings.warn(
            f"{TRAINING_SEED}: the search varied it, but with replicates the study chooses the seeds, so it is not "
            "taken back",
            stacklevel=2,
        )
    if walk.left_out and not changes:
        raise ValueError(
            f"study {folder.name}: trial {number} differs from the base in {TRAINING_SEED} alone, and with replicates "
            "the study chooses the seeds. Leave --replicates out to compare the two networks."
        )
    if not changes:
        raise ValueError(
            f"study {folder.name}: trial {number} has the settings of the base, so there is nothing to take back"
        )
    arms = _Arms(walk)
    record = _plan(arms, changes, folder.name, number)
    variants = {name: differences(base, plain(config)) for name, config in arms.trials.items()}
    return StudySpec(
        job=f"{folder.name}-ablation",
        space=parse(SpaceConfig, {"base": spec.space.base, "variants": variants}, "ablation"),
        base=base,
        objective=spec.objective,
        seed=spec.seed if seed is None else seed,
        threads=spec.threads,
        replicates=reader.replicates,
        comparisons=spec.comparisons,
        ablation=record,
    )


def _check_search(reader: StudyReader, folder: StudyFolder, trial: int | None) -> None:
    spec, name = reader.spec, folder.name
    if not spec.space.vary:
        raise ValueError(
            f"study {name}: its trials are a list, so it searched nothing that could be taken back. Compare them with "
            f"`{coldtune_command('study show', folder.home, name)}`."
        )
    # Trainings of a setting that was given up may wait for ever, so waiting trials do not count.
    running = any(setting.running() for setting in reader.settings())
    if running or reader.finished() < int(folder.start()["trials"]):
        raise ValueError(
            f"study {name}: {reader.finished()} of {folder.start()['trials']} trials have ended. Finish the search "
            f"first: `{coldtune_command('study resume', folder.home, name)}`."
        )
    if len(spec.objectives) > 1 and trial is None:
        front = ", ".join(str(trial.number) for trial in reader.front()) or "none"
        raise ValueError(
            f"study {name}: has {len(spec.objectives)} objectives, so no trial is the best. Choose one with --trial, "
            f"for example of the Pareto front: {front}."
        )


def _choose(reader: StudyReader, number: int | None) -> tuple[int, Point]:
    """Return the number and the point of the best setting, or of the setting `number`."""
    if number is None:
        if (best := reader.best_setting()) is None:
            raise ValueError(f"study {reader.study.study_name}: no trial has completed, so there is no best setting")
        return best.number, best.point
    finished = {setting.number: setting for setting in reader.settings() if setting.finished}
    if number not in finished:
        listed = ", ".join(map(str, finished)) or "none"
        raise ValueError(f"--trial {number}: no trial of this number has completed; completed: {listed}")
    return number, finished[number].point


def _base(spec: StudySpec, seed: int | None, settings: Sequence[str]) -> dict[str, Any]:
    """Return the base of the search, changed by the command line and without rungs, at which nothing is decided."""
    for setting in settings:
        key = setting.partition("=")[0].strip()
        if key.partition(".")[0] in ("search", "pruning", "rungs"):
            raise ValueError(f"--set {setting}: an ablation searches and prunes nothing. Leave it out.")
        if key in spec.space.vary or key in spec.space.derive:
            role = "varies" if key in spec.space.vary else "derives"
            raise ValueError(
                f"--set {setting}: the search {role} this key, so it is a part of the question. Leave it out."
            )
    base = copy.deepcopy(spec.base)
    base.pop("rungs", None)
    return change_base(base, {}, seed=seed, settings=settings)


class _Walk:
    """The settings between two points of a space."""

    def __init__(self, space: Space, best: Point, base: Point, left_out: Collection[str] = ()) -> None:
        """Compare two points.

        Args:
            left_out: Keys that keep the base's value everywhere.
        """
        self.space, self.best, self.base = space, best, base
        self.paths = {VARIANT: VARIANT, **space.paths}
        self.names = {path: name for name, path in self.paths.items()}
        names = [name for name in space.distributions if best.get(name, _ABSENT) != base.get(name, _ABSENT)]
        paths = [self.paths[name] for name in names]
        self.changed = [path for path in paths if path not in left_out]
        self.left_out = [path for path in paths if path in left_out]

    def changes(self) -> dict[str, Change]:
        """Return the changes by name, in the order of the space. A key changes together with its parent."""
        groups: list[list[str]] = []
        for path in self.changed:
            parents = set(self._parents(path))
            joined = [group for group in groups if parents & set(group)]
            groups = [group for group in groups if group not in joined]
            groups.append([key for group in joined for key in group] + [path])
        groups.sort(key=lambda group: self.changed.index(group[0]))
        return {self._name(group): self._change(group) for group in groups}

    def point(self, kept: Collection[str]) -> dict[str, Any]:
        """Return the point with the best setting's values of the keys `kept`, and the base's of all others."""
        variant = (self.best if VARIANT in kept else self.base).get(VARIANT)
        defaults = self.space.with_defaults(self.space.variant_tree({VARIANT: variant}))

        def pick(name: str, distribution: BaseDistribution) -> Any:
            path = self.paths[name]
            sides = (self.best, self.base) if path in kept else (self.base, self.best)
            for side in sides:
                if name in side:
                    return side[name]
            # The key has an effect in neither setting, but between them.
            value = get_key(defaults, path)
            return value if contains(distribution, value) else _first_value(distribution)

        return self.space.walk(pick)

    def _parents(self, path: str) -> list[str]:
        """Return the changed keys on which a key depends."""
        if path == VARIANT:
            return []
        when = self.space.config.vary[path].when
        parents = [key for key in when if key in self.changed]
        name = self.names[path]
        if not parents and (name in self.best) != (name in self.base) and VARIANT in self.changed:
            return [VARIANT]  # the condition is on a key that the variant sets
        return parents

    def _change(self, group: Sequence[str]) -> Change:
        before = {path: self.base[name] for path in group if (name := self.names[path]) in self.base}
        after = {path: self.best[name] for path in group if (name := self.names[path]) in self.best}
        return Change(keys=tuple(group), before=before, after=after)

    def _name(self, group: Sequence[str]) -> str:
        return "+".join(map(short_name, group))


_ABSENT = object()


def _first_value(distribution: BaseDistribution) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[0]
    return distribution.low  # type: ignore[attr-defined]


def _ordered(changes: Mapping[str, Change], order: Sequence[str]) -> dict[str, Change]:
    """Return the changes in the order in which the path takes them back."""
    first: list[str] = []
    for key in order:
        found = [name for name, change in changes.items() if key in change.keys or key in map(short_name, change.keys)]
        if not found:
            listed = ", ".join(path for change in changes.values() for path in change.keys) or "none"
            raise ValueError(f"--order {key}: is no key in which the two settings differ; these are: {listed}")
        if found[0] in first:
            raise ValueError(f"--order {key}: is there twice, or changes together with a key before it. Leave it out.")
        first.append(found[0])
    return {name: changes[name] for name in [*first, *(name for name in changes if name not in first)]}


@dataclass
class _Arms:
    """The arms of an ablation while they are collected. Arms that mean the same trial are one arm."""

    walk: _Walk
    trials: dict[str, TrialConfig] = field(default_factory=dict)
    _known: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, kept: Collection[str]) -> str:
        """Add an arm, and return the name under which it is known. InfeasibleError if it cannot exist."""
        try:
            trial = self.walk.space.resolve(self.walk.point(kept))
        except InfeasibleError:
            raise
        except ValueError as error:
            raise InfeasibleError(str(error)) from None
        name = name if len(name) <= _LONGEST_NAME else f"arm {len(self.trials)}"
        known = self._known.setdefault(meaning(trial), name)
        self.trials.setdefault(known, trial)
        return known


def _plan(arms: _Arms, changes: Mapping[str, Change], study: str, number: int) -> AblationRecord:
    """Add the arms of an ablation, and return its record."""
    keys = {name: change.keys for name, change in changes.items()}
    try:
        base = arms.add(_BASE, ())
        best = arms.add(f"best (trial {number})", [key for group in keys.values() for key in group])
    except InfeasibleError as error:
        raise ValueError(
            f"study {study}: its base or trial {number} cannot exist with these settings: {error}"
        ) from None
    alone = {}
    for name, change in changes.items():
        try:
            arm = arms.add(f"base with {name}", change.keys)
            alone[name] = change.model_copy(update={"alone": arm})
        except InfeasibleError as error:
            alone[name] = change.model_copy(update={"why_not": str(error)})
    left, path, waiting = dict(keys), [], {}
    for name in changes:
        del left[name]
        back = [other for other in changes if other not in left]
        try:
            arm = arms.add(f"best without {' and '.join(back)}", [key for group in left.values() for key in group])
        except InfeasibleError as error:
            waiting[name] = str(error)
            continue
        path.append(Step(changes=(*waiting, name), arm=arm, skipped=waiting))
        waiting = {}
    return AblationRecord(study=study, trial=number, changes=alone, base=base, best=best, path=tuple(path))

"""Beginning a study with what others found: which of their trials mean the same here, and which are worth more steps.

Another study's trial is looked up in this study's space by what it resolved to: every key that varies here takes the
trial's value, whether or not it varied there. Where such a point lies in this space and determines the same images
under the same protocol (the keys of the stages are equal), the trial is taken over as it ended, with its values. Where
only the length of the training differs, its value means something else, but its training can go on from the store: the
best `FIRST` such points are tried first.

COMPLETE trials are taken over with their values, PRUNED ones with their rungs, where both studies judge at the same
rungs: the search then knows where not to look, and the pruner whom to compare with. FAILED ones are not: a failure
says more about a machine or a version than about a point. Neither are trials that have not ended.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from coldtune.config import parse, plain
from coldtune.data import Dataset
from coldtune.diffusion import build_degradation, source_of
from coldtune.dotted import get_key, leaves
from coldtune.metrics.protocol import Protocol
from coldtune.metrics.values import difference
from coldtune.stages.keys import measure_key, sample_key
from coldtune.stages.trial import TrialConfig
from coldtune.studies.space.config import VARIANT, InfeasibleError
from coldtune.studies.space.distributions import contains, describe_distribution
from coldtune.studies.space.space import Space
from coldtune.studies.spec.folder import StudyFolder, studies
from coldtune.studies.spec.study import StudySpec
from coldtune.studies.storage.backends import JOURNAL, open_storage
from coldtune.studies.storage.optuna_private import pruner_notes
from coldtune.studies.storage.record import StudyRecord, TrialRecord, attributes_of_import
from coldtune.studies.storage.trial_cache import point_name
from coldtune.studies.trials.setup import Imports

FIRST = 5
"""How many points whose training only has to go on are tried first: few, so that most of the search is the search's."""


class UnfitError(ValueError):
    """Why a trial means nothing here, worded for several trials: `lie outside rate 0.01 to 0.1`."""


@dataclass(frozen=True)
class Importer:
    """The study that imports: its space, and all that determines what a value in it means."""

    spec: StudySpec
    space: Space
    dataset: Dataset
    sources: Mapping[str, Dataset]
    protocol: Protocol

    def meaning(self, trial: TrialConfig, steps: int | None = None) -> str:
        """Equal for trials whose images are the same, under this study's protocol; steps: as if trained for so long."""
        if steps is not None:
            trial = trial.model_copy(update={"training": trial.training.model_copy(update={"steps": steps})})
        source = source_of(trial.degradation)
        drawn_from = self.sources.get(source) if source else None
        return measure_key(sample_key(trial, self.dataset, trial.sampler, drawn_from), self.protocol)


@dataclass(frozen=True)
class SourceStudy:
    """Another study, as far as its trials are understood: what each resolved to."""

    name: str
    spec: StudySpec
    space: Space
    trials: Sequence[FrozenTrial]


@dataclass
class _Gathered:
    """What was found in all studies so far."""

    trials: list[FrozenTrial] = field(default_factory=list)
    longer: list[tuple[tuple[float, ...], dict[str, Any], str]] = field(default_factory=list)
    known: set[str] = field(default_factory=set)


def gather(target: Importer, folder: StudyFolder, url: str | None) -> Imports:
    """What the studies that the spec names have for `target`; nothing is written.

    They are looked for in the home, then in the database at `url`. ValueError naming a study that is in neither, or
    whose trials saw other images.
    """
    gathered, said = _Gathered(), {}
    for name in target.spec.imports:
        if name == folder.name:
            raise ValueError(f"--import {name}: is this very study; the same command without it goes on with it")
        found = _find(name, target, folder, url)
        said[name] = _sort(found, target, gathered)
    best = sorted(gathered.longer, key=lambda one: one[0])[:FIRST]
    if target.space.size is not None or target.spec.search.algorithm == "grid":
        best = []  # each point has its turn anyway
    return Imports(gathered.trials, [(point, why) for _, point, why in best], said)


def _sort(found: SourceStudy, target: Importer, gathered: _Gathered) -> str:
    """Add what fits to `gathered`; gives what became of the study's trials, in words."""
    fits, unfit, longer = 0, Counter[str](), 0
    for trial in found.trials:
        try:
            config = _ended(trial, found, target)
            point = locate(config, target)
            if target.meaning(target.space.resolve(point)) == target.meaning(config):
                _once(point, gathered)
                gathered.trials.append(_taken(trial, point, config, found, target))
                fits += 1
            else:
                _once(point, gathered)
                why = f"trial {trial.number} of {found.name}, whose training goes on"
                gathered.longer.append((_order(trial, target.spec), point, why))
                longer += 1
        except UnfitError as reason:
            unfit[str(reason)] += 1
    text = f"{fits} of {len(found.trials)} trials fit"
    if longer:
        text += f"; {longer} differ only in how long they train: the best are tried first ({FIRST} at most)"
    return "; ".join([text, *(f"{count} {reason}" for reason, count in unfit.most_common())])


def locate(trial: TrialConfig, target: Importer) -> dict[str, Any]:
    """The point of the target's space that determines what `trial` does, but perhaps for the length of its training.

    UnfitError where there is none, saying what is in the way.
    """
    reasons = []
    for variant in target.space.config.variants or (None,):
        try:
            return _at(trial, variant, target)
        except UnfitError as reason:
            reasons.append(reason)
    raise reasons[0] if len(reasons) == 1 else UnfitError("are none of the variants")


def _at(trial: TrialConfig, variant: str | None, target: Importer) -> dict[str, Any]:
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
        here = target.space.resolve(point)
    except InfeasibleError as error:
        raise UnfitError(f"may not be asked here ({_of_all(error)})") from None
    except ValueError:
        raise UnfitError("are not valid here") from None
    if target.meaning(here, trial.training.steps) != target.meaning(trial):
        raise UnfitError(f"differ in {', '.join(_differences(trial, here, target)) or 'what they draw from'}")
    return point


def _ended(trial: FrozenTrial, found: SourceStudy, target: Importer) -> TrialConfig:
    """What a trial that ended resolved to; UnfitError where it has nothing to take over."""
    if trial.state == TrialState.FAIL:
        raise UnfitError("failed")
    if not trial.state.is_finished():
        raise UnfitError("had not ended")
    record = TrialRecord.of(trial)
    if (protocol := record.judged_under) and (parts := difference(protocol, target.protocol)):
        listed = ", ".join(f"{name} {theirs}, here {mine}" for name, (theirs, mine) in parts.items())
        raise UnfitError(f"were judged under another protocol ({listed})")
    config = found.space.resolve(trial.params)
    made = [stage.key for stage in record.stages if stage.stage == "measure"]
    if made and made[0] != target.meaning(config):
        raise UnfitError("were made by another version of coldtune, or drew from other images")
    if trial.state == TrialState.PRUNED and not _judges_alike(config, found, target):
        raise UnfitError("were pruned at other rungs, or by another objective")
    missing = [one.metric for one in target.spec.objectives if one.metric not in record.metrics]
    if missing and trial.state == TrialState.COMPLETE:
        raise UnfitError(f"have no {', '.join(missing)}")
    return config


def _judges_alike(config: TrialConfig, found: SourceStudy, target: Importer) -> bool:
    """Whether what a trial was worth on the way can be compared with what this study's trials are."""
    here = target.space.resolve(target.space.first)
    rungs = config.rungs == here.rungs and config.protocol == here.protocol
    return rungs and found.spec.objectives == target.spec.objectives


def _taken(
    trial: FrozenTrial, point: dict[str, Any], config: TrialConfig, found: SourceStudy, target: Importer
) -> FrozenTrial:
    """The trial as one of the new study's, finished as it was."""
    record, comparable = TrialRecord.of(trial), _judges_alike(config, found, target)
    same_pruning = comparable and found.spec.pruning == target.spec.pruning
    notes = pruner_notes(trial) if same_pruning and record.rungs else {}
    complete = trial.state == TrialState.COMPLETE
    return create_trial(
        state=trial.state,
        values=[record.metrics[one.metric] for one in target.spec.objectives] if complete else None,
        params=point,
        distributions={name: target.space.distributions[name] for name in point},
        user_attrs=attributes_of_import(trial, found.name, comparable),
        system_attrs={**notes, **(target.spec.search.first_generation() if complete else {})},
        intermediate_values=trial.intermediate_values if comparable else {},
    )


def _once(point: Mapping[str, Any], gathered: _Gathered) -> None:
    if (name := point_name(point)) in gathered.known:
        raise UnfitError("are the same as others")
    gathered.known.add(name)


def _order(trial: FrozenTrial, spec: StudySpec) -> tuple[float, ...]:
    """The better, the smaller, by this study's first objective; one that was pruned comes last."""
    value = TrialRecord.of(trial).metrics.get(spec.objective.metric)
    if trial.state != TrialState.COMPLETE or value is None:
        return (1.0, 0.0)
    return (0.0, value if spec.objective.direction == "minimize" else -value)


def _differences(trial: TrialConfig, here: TrialConfig, target: Importer) -> list[str]:
    """The keys in which two trials differ and that change what they do, but for the length of the training."""
    theirs, mine = (dict(leaves(_determining(one, target))) for one in (trial, here))
    return [key for key in dict.fromkeys([*theirs, *mine]) if theirs.get(key) != mine.get(key)]


def _determining(trial: TrialConfig, target: Importer) -> dict[str, Any]:
    tree: dict[str, Any] = {
        section: plain(getattr(trial, section)) for section in ("data", "restorer", "sampler", "protocol")
    }
    tree["degradation"] = plain(build_degradation(trial.degradation, target.space.image_shape).config)
    tree["prior"], tree["training"] = trial.prior or {}, trial.training.trajectory()
    return tree


def _of_all(error: InfeasibleError) -> str:
    """The part of the reason that holds for all trials: the constraint, without this trial's own value."""
    return str(error).partition(": ")[2] or "a derived value cannot be had"


def _find(name: str, target: Importer, folder: StudyFolder, url: str | None) -> SourceStudy:
    """The study called `name`, on the same images; ValueError otherwise."""
    other = StudyFolder(folder.home, name)
    if other.exists:
        start = other.start()
        begun = start["storage"] is not None or (other.path / JOURNAL).exists()
        study = _load(name, open_storage(other.path, start["storage"])) if begun else None
        spec, fingerprint = other.spec(), start["fingerprint"]
    else:
        study = _load(name, open_storage(folder.path, url)) if url else None
        record = StudyRecord.of(study) if study else StudyRecord()
        if study is None or record.spec is None:
            raise ValueError(f"--import {name}: there is no such study; {_there(folder, url)}")
        spec = parse(StudySpec, record.spec)
        fingerprint = record.fingerprint or target.dataset.fingerprint
    if fingerprint != target.dataset.fingerprint:
        theirs = f"{spec.base['data']['name']} (fingerprint {fingerprint[:12]})"
        mine = f"{target.dataset.name} ({target.dataset.fingerprint[:12]})"
        raise ValueError(f"--import {name}: its trials saw other images, {theirs}, than this study's will, {mine}")
    trials = study.get_trials(deepcopy=False) if study else []
    return SourceStudy(name, spec, Space(spec.space, spec.base, target.space.image_shape), trials)


def is_ready(folder: StudyFolder, url: str | None) -> bool:
    """Whether the study was set up before, with whatever it imported."""
    if url is None and not (folder.path / JOURNAL).exists():
        return False
    study = _load(folder.name, open_storage(folder.path, url))
    return study is not None and StudyRecord.of(study).ready


def _load(name: str, storage: BaseStorage) -> optuna.Study | None:
    try:
        return optuna.load_study(study_name=name, storage=storage)
    except KeyError:
        return None


def _there(folder: StudyFolder, url: str | None) -> str:
    named: Iterable[str] = [one.name for one in studies(folder.home) if one.name != folder.name]
    text = f"{folder.home} has {', '.join(named) or 'no other'}"
    if url:
        database = sorted(optuna.get_all_study_names(open_storage(folder.path, url)))
        text += f", --storage has {', '.join(database) or 'none'}"
    return text

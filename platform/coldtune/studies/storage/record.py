"""The records that a study and its trials keep in Optuna's storage.

This module and `outcome` are the only places that know the names of the stored attributes. A new attribute is a new
field there. Storages outlive versions of coldtune, so a stored name never changes its meaning, and a field whose
attribute is missing has a default.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from optuna.study import Study
from optuna.trial import FrozenTrial, Trial

from coldtune.addresses import redact
from coldtune.config import parse
from coldtune.metrics.protocol import Protocol
from coldtune.readback import checked
from coldtune.studies.storage.outcome import Rung, TrialOutcome, outcome_fields

_OWNER = "coldtune:owner"  # a system attribute, while all other names below are user attributes


@dataclass(frozen=True)
class StoppedTraining:
    """How far the training of a pruned trial came: the step and seconds reached, and its planned number of steps."""

    step: int
    steps: int
    seconds: float


@dataclass(frozen=True)
class Origin:
    """The trial of another study from which an imported trial was copied."""

    study: str
    trial: int


@dataclass(frozen=True)
class Decision:
    """Whether a trial ends at a rung, and the system attributes that Optuna's pruner set while deciding."""

    prune: bool
    notes: Mapping[str, Any]


@dataclass(frozen=True)
class TrialRecord(TrialOutcome):
    """Everything that a trial keeps in the storage, beside its number, state, parameters and values.

    A trial that has not completed has only a part of an outcome.

    Attributes:
        reason: Why the trial failed, or at which rung it was pruned.
        training: How far the training of a pruned trial came.
        decisions: By step, the decision at that rung.
        why: Why the trial was enqueued before the search chooses points.
        promoted_from: The number of the pruned trial that this trial continues.
        retry_of: The number of the failed trial in whose place this trial was asked.
        imported_from: The trial of another study that this trial copies.
        setting, replicate: The number of the trial's setting, and which of its trainings the trial is. A trial without
            them is replicate 0 (`coldtune.studies.storage.settings`).
    """

    reason: str = ""
    training: StoppedTraining | None = None
    decisions: Mapping[int, Decision] = field(default_factory=dict)
    why: str = ""
    promoted_from: int | None = None
    retry_of: int | None = None
    imported_from: Origin | None = None
    setting: int | None = None
    replicate: int = 0

    @classmethod
    def of(cls, trial: FrozenTrial | Trial) -> TrialRecord:
        """Read the record of a trial. UnreadableError if the storage was damaged or edited."""
        return checked(f"the record of trial {trial.number} in its study's storage", lambda: cls._read(trial))

    @classmethod
    def _read(cls, trial: FrozenTrial | Trial) -> TrialRecord:
        stored = trial.user_attrs
        training, origin = stored.get("training"), stored.get("imported_from")
        return cls(
            **outcome_fields(stored),
            reason=stored.get("reason", ""),
            training=None if training is None else StoppedTraining(**training),
            decisions={int(step): Decision(**each) for step, each in stored.get("pruning", {}).items()},
            why=stored.get("why", ""),
            promoted_from=stored.get("promoted_from"),
            retry_of=stored.get("retry_of"),
            imported_from=None if origin is None else Origin(**origin),
            setting=stored.get("setting"),
            replicate=stored.get("replicate", 0),
        )


_IMPORTED_KEYS = (
    "metrics", "protocol", "stages", "images", "measured", "checkpoint", "rungs", "draws", "seconds", "trained",
    "training", "reason", "computed", "environment",
)  # fmt: skip


def attributes_of_import(trial: FrozenTrial, study: str, comparable_rungs: bool) -> dict[str, Any]:
    """Return the user attributes of a copy of `trial` in another study.

    The copy leaves out attributes that concern the original study only, for example the seconds saved.

    Args:
        study: The name of the study of `trial`.
        comparable_rungs: Whether the trial was judged at its rungs as the other study's trials are.
    """
    stored = trial.user_attrs
    kept = {key: stored[key] for key in _IMPORTED_KEYS if key in stored and (key != "rungs" or comparable_rungs)}
    return {**kept, "imported_from": stored.get("imported_from", {"study": study, "trial": trial.number})}


def attributes_of_enqueued(why: str) -> dict[str, Any]:
    """Return the user attributes of a point that is asked before the search chooses, because of `why`."""
    return {"why": why}


def attributes_of_promoted(number: int) -> dict[str, Any]:
    """Return the user attributes of a trial that continues the pruned trial `number`."""
    return {"promoted_from": number}


def attributes_of_retry(failed: FrozenTrial) -> dict[str, Any]:
    """Return the user attributes of a trial that is asked in the place of a failed trial.

    Like the failed trial, it continues a pruned trial, is asked for a reason of its own, or is a further replicate.
    """
    names = ("why", "promoted_from", *(("setting", "replicate") if replicate_of(failed) else ()))
    kept: dict[str, Any] = {name: failed.user_attrs[name] for name in names if name in failed.user_attrs}
    return {**kept, "retry_of": failed.number}


def owned_by(token: str) -> dict[str, str]:
    """Return the system attribute that names the driver of a trial (`coldtune.studies.drivers.election`)."""
    return {_OWNER: token}


def owner_of(trial: FrozenTrial) -> str | None:
    """Return the token of the driver that runs or ran a trial."""
    owner: str | None = trial.system_attrs.get(_OWNER)
    return owner


def promoted_from(trial: FrozenTrial | Trial) -> int | None:
    """Return the number of the pruned trial that `trial` continues, without reading the whole record."""
    number: int | None = trial.user_attrs.get("promoted_from")
    return number


def retry_of(trial: FrozenTrial | Trial) -> int | None:
    """Return the number of the failed trial in whose place `trial` was asked, without reading the whole record."""
    number: int | None = trial.user_attrs.get("retry_of")
    return number


def attributes_of_replicate(setting: int, replicate: int) -> dict[str, Any]:
    """Return the user attributes of a further training of a setting."""
    return {"setting": setting, "replicate": replicate}


def replicate_of(trial: FrozenTrial | Trial) -> tuple[int, int] | None:
    """Return the setting and the replicate of a trial, or None if it is replicate 0 of its own setting."""
    replicate: int = trial.user_attrs.get("replicate", 0)
    return (trial.user_attrs["setting"], replicate) if replicate else None


def is_beyond_list(trial: FrozenTrial) -> bool:
    """Return whether a trial repeats the point of an earlier trial, so that it takes no place in a list of points."""
    return promoted_from(trial) is not None or retry_of(trial) is not None or replicate_of(trial) is not None


def is_requested(trial: FrozenTrial) -> bool:
    """Return whether a trial waits because something else than the search asked for it, such as a promotion."""
    return is_beyond_list(trial) or bool(trial.user_attrs.get("why"))


def is_promoted(trial: FrozenTrial) -> bool:
    """Return whether a trial continues a pruned trial, and is not a second attempt to do so."""
    return promoted_from(trial) is not None and retry_of(trial) is None


def is_imported(trial: FrozenTrial) -> bool:
    """Return whether a trial was copied from another study, without reading the whole record."""
    return "imported_from" in trial.user_attrs


def imported(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """Return the trials that were copied from other studies."""
    return [trial for trial in trials if is_imported(trial)]


def write_outcome(trial: Trial, outcome: TrialOutcome) -> None:
    """Store the outcome of a trial."""
    for key, value in outcome.attributes().items():
        trial.set_user_attr(key, value)


def write_setting(trial: Trial, setting: int) -> None:
    """Store the number of a setting with its first trial, for people who look at the storage with other tools."""
    for key, value in attributes_of_replicate(setting, 0).items():
        trial.set_user_attr(key, value)


def write_reason(trial: Trial, reason: str) -> None:
    """Store why a trial failed or was pruned."""
    trial.set_user_attr("reason", redact(reason))


def write_rung(trial: Trial, rung: Rung) -> None:
    """Store the values of a trial at a rung, beside those of earlier rungs."""
    trial.set_user_attr("rungs", {**trial.user_attrs.get("rungs", {}), str(rung.step): dict(rung.values)})
    trial.set_user_attr("stages", [list(stage) for stage in rung.stages])


def write_decisions(trial: Trial, decisions: Mapping[int, Decision]) -> None:
    """Store the decisions at a trial's rungs."""
    trial.set_user_attr("pruning", {str(step): asdict(decision) for step, decision in decisions.items()})


def write_pruned(trial: Trial, rung: Rung) -> None:
    """Store at which rung a trial ended, and its work up to there."""
    trial.set_user_attr("reason", str(rung))
    for key, value in asdict(rung.effort).items():
        trial.set_user_attr(key, value)
    trial.set_user_attr("training", asdict(StoppedTraining(rung.step, rung.steps, rung.training_seconds)))


@dataclass(frozen=True)
class TestResult:
    """The metrics of the best trial on the test split, or their means over the trainings of the best setting.

    Attributes:
        trial: The number of the best trial, or of the first training of the best setting.
        metrics: The metrics, or their means.
        protocol: The plain values of their protocol.
        each: By trial number as text, the metrics of each training of the best setting. Empty for a single training.
    """

    __test__ = False  # pytest would collect it

    trial: int
    metrics: Mapping[str, float]
    protocol: Mapping[str, Any]
    each: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @property
    def judged_under(self) -> Protocol:
        """The protocol of the metrics."""
        return parse(Protocol, self.protocol, "protocol")


@dataclass(frozen=True)
class StudyRecord:
    """Everything that a study keeps in the storage, beside its trials.

    Attributes:
        spec: The plain values of its spec.
        fingerprint: The fingerprint of its dataset.
        imported: By name of another study, how many of its trials were imported, as text.
        ready: Whether the study is completely set up, including its imports.
        trials: How many trials the study asks in all. With replicates, how many settings.
        replicates: The trainings of each setting: the number with which the study began, then every number to which
            it was changed. Each further number is a further look at the results. Empty for a study of an older version.
        test: The metrics of its best trial on the test split.
        identity: Random hex digits, by which the runs of this study are told from those of another study of the same
            name. "" for a study of an older version.
        stop_when_settled: Whether the leading driver asks no more settings as soon as the search has settled.
        settled: After how many settings the study ended because its search had settled. None if it did not.
    """

    spec: Mapping[str, Any] | None = None
    fingerprint: str | None = None
    imported: Mapping[str, str] = field(default_factory=dict)
    ready: bool = False
    trials: int | None = None
    replicates: tuple[int, ...] = ()
    test: TestResult | None = None
    identity: str = ""
    stop_when_settled: bool = False
    settled: int | None = None

    @classmethod
    def of(cls, study: Study) -> StudyRecord:
        """Read the record of a study. UnreadableError if the storage was damaged or edited."""
        return checked(f"the record of study {study.study_name} in its storage", lambda: cls._read(study))

    @classmethod
    def _read(cls, study: Study) -> StudyRecord:
        stored = study.user_attrs
        spec, test = stored.get("spec"), stored.get("test")
        return cls(
            spec=None if spec is None else json.loads(spec),
            fingerprint=stored.get("fingerprint"),
            imported=stored.get("imported", {}),
            ready=bool(stored.get("ready")),
            trials=stored.get("trials"),
            replicates=tuple(stored.get("replicates", ())),
            test=None if test is None else TestResult(**test),
            identity=stored.get("identity", ""),
            stop_when_settled=bool(stored.get("stop_when_settled")),
            settled=stored.get("settled"),
        )


def write_study(
    study: Study,
    *,
    spec: Mapping[str, Any] | None = None,
    fingerprint: str | None = None,
    imported: Mapping[str, str] | None = None,
    ready: bool | None = None,
    trials: int | None = None,
    replicates: Sequence[int] | None = None,
    test: TestResult | None = None,
    identity: str | None = None,
    stop_when_settled: bool | None = None,
    settled: int | None = None,
) -> None:
    """Store the given parts of a study's record (see `StudyRecord`), and leave the others as they are."""
    # The spec is text, because a space is walked in the order in which its file lists the keys.
    given = {
        "spec": None if spec is None else json.dumps(spec),
        "fingerprint": fingerprint,
        "imported": None if imported is None else dict(imported),
        "ready": ready,
        "trials": trials,
        "replicates": None if replicates is None else list(replicates),
        "test": None if test is None else asdict(test),
        "identity": identity,
        "stop_when_settled": stop_when_settled,
        "settled": settled,
    }
    for key, value in given.items():
        if value is not None:
            study.set_user_attr(key, value)

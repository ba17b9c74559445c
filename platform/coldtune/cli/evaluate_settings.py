"""The verdicts on the settings of runs that `coldtune evaluate` compares as single networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from coldtune.environment import coldtune_command
from coldtune.metrics import Protocol
from coldtune.reports.networks import describe_networks
from coldtune.stages.evaluate import FinishedTrial
from coldtune.stages.keys import train_key
from coldtune.studies.progress.text import metric_name, spread_value
from coldtune.studies.progress.verdicts import judge_two
from coldtune.studies.spec.folder import studies
from coldtune.studies.storage.record import TrialRecord
from coldtune.studies.trials.lookup import split_name
from coldtune.studies.trials.reading import StudyReader, read_study
from coldtune.verdicts import Verdict

_TRAININGS = 5  # of each setting, in the suggested command


@dataclass(frozen=True)
class SettingsComparison:
    """What is known about the settings of two runs.

    Attributes:
        a: The name of a run.
        b: The name of the run that it is compared with.
        study: The study that has both, or None.
        sentence: The verdict on the settings, or why there is none.
        verdict: The verdict, or None.
    """

    a: str
    b: str
    study: str | None
    sentence: str
    verdict: Verdict | None = None

    def record(self) -> dict[str, Any]:
        """Return the comparison, ready for JSON."""
        found = self.verdict
        interval = None if found is None else found.interval
        return {
            "a": self.a,
            "b": self.b,
            "study": self.study,
            "outcome": None if found is None else str(found.outcome),
            "metric": None if found is None else found.metric,
            "difference": None if interval is None else interval.value,
            "low": None if interval is None else interval.low,
            "high": None if interval is None else interval.high,
            "trainings": None if found is None else [found.count_a, found.count_b],
            "settings": None if found is None else [found.a, found.b],
            "sentence": self.sentence,
        }


def compare_settings(runs: Sequence[FinishedTrial], protocol: Protocol, home: Path) -> list[SettingsComparison]:
    """Compare the setting of each further run with that of the first, by all trainings in the study of both.

    Args:
        runs: The runs as they were found, with the protocols of their trials.
        protocol: The protocol under which the runs were judged now.
    """
    readers: dict[str, StudyReader] = {}
    places = [_places(run, home, readers) for run in runs]
    return [
        _compare(other, runs[0], place, places[0], readers, protocol, home)
        for other, place in zip(runs[1:], places[1:], strict=True)
    ]


def describe_training(run: FinishedTrial, home: Path) -> str:
    """Name the setting of a run that was trained several times, and its mean. Return "" for a single training."""
    named = split_name(run.name, home)
    if named is None:
        return ""
    reader = read_study(named[0])
    trial = reader.find(named[1])
    if trial is None or not reader.replicated:
        return ""
    number = int(named[1].partition(".")[0])
    (setting,) = (each for each in reader.settings() if each.number == number)
    metric = reader.spec.objective.metric
    spread = setting.spread(metric)
    if spread is None or spread.n == 1:
        return ""
    values = f"{metric_name(metric)} {spread_value(spread)}"
    return f"{run.name} is a single training of setting {number}. All its trainings in the study have {values}."


def _places(run: FinishedTrial, home: Path, readers: dict[str, StudyReader]) -> dict[str, FrozenTrial]:
    """Return the trials that a run is, by study. A run that was named by its file or MLflow id is known by its config.

    Args:
        readers: The open studies by name, to which further studies are added.
    """
    named = split_name(run.name, home)
    if named is not None:
        folder, label = named
        readers[folder.name] = readers.get(folder.name) or read_study(folder)
        trial = readers[folder.name].find(label)
        return {} if trial is None else {folder.name: trial}
    found = {}
    for folder in studies(home):
        try:
            reader = readers[folder.name] = readers.get(folder.name) or read_study(folder)
            finished = (trial for trial in reader.trials() if trial.state == TrialState.COMPLETE)
            trial = next((trial for trial in finished if reader.config(trial) == run.config), None)
        except (OSError, ValueError):  # an unreadable study must not hide the others
            continue
        if trial is not None:
            found[folder.name] = trial
    return found


def _compare(
    a: FinishedTrial,
    b: FinishedTrial,
    place_a: dict[str, FrozenTrial],
    place_b: dict[str, FrozenTrial],
    readers: dict[str, StudyReader],
    protocol: Protocol,
    home: Path,
) -> SettingsComparison:
    same = _same_training(a, b)
    about = describe_networks(same=True).removesuffix(".") if same else "This compares two trained networks"
    shared = sorted((study for study in place_a if study in place_b), key=lambda study: not readers[study].replicated)
    if not shared:
        where = [", ".join(place) or "no study" for place in (place_a, place_b)]
        reason = f"{a.name} belongs to {where[0]} and {b.name} to {where[1]}"
        return SettingsComparison(a.name, b.name, None, _none(about, f"{reason}. A verdict needs one study of both"))
    study = shared[0]
    reader, trials = readers[study], (place_a[study], place_b[study])
    records = [TrialRecord.of(trial) for trial in trials]
    if not reader.replicated:
        more = coldtune_command("study resume", home, study, flags=("--replicates", _TRAININGS))
        reason = f"each was trained once. Train each several times with `{more}`"
        return SettingsComparison(a.name, b.name, study, _none(about, reason))
    first, second = (int(reader.label(trial.number).partition(".")[0]) for trial in trials)
    if first == second:
        said = f"{about}. Both are trainings of setting {first}, so the difference is the luck of training."
        return SettingsComparison(a.name, b.name, study, said)
    verdict = judge_two(reader, first, second)
    if isinstance(verdict, str):
        return SettingsComparison(a.name, b.name, study, _none(about, verdict))
    said = f"{about}. By all their trainings in {study}: {verdict.sentence()}"
    judged = records[0].judged_under
    if judged is not None and judged.key != protocol.key:
        said += f" That verdict is under the protocol of the study (N = {judged.num_images:,}, {judged.split})."
    return SettingsComparison(a.name, b.name, study, said, verdict)


def _same_training(a: FinishedTrial, b: FinishedTrial) -> bool:
    """Return True if two runs use one training, perhaps at different steps or with different averages."""
    keys = [train_key(run.config, run.dataset, run.source) for run in (a, b)]
    return keys[0] == keys[1] and a.computed == b.computed


def _none(about: str, reason: str) -> str:
    return f"{about}. There is no verdict on their settings, because {reason.removesuffix('.')}."

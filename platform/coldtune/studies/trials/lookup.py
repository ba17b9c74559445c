"""Finding a finished trial by its name: study and number, the id of an MLflow run, or its config.yaml."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from coldtune import tracking
from coldtune.addresses import Passwords, at_folder
from coldtune.config import parse, plain
from coldtune.data import Dataset, prepare
from coldtune.diffusion import source_of
from coldtune.stages.compute import Compute
from coldtune.stages.evaluate import FinishedTrial
from coldtune.stages.trial import TrialConfig, parse_trial
from coldtune.store.location import StoreLocation
from coldtune.store.store import Store
from coldtune.studies.spec.folder import StudyFolder, studies
from coldtune.studies.storage.record import TrialRecord
from coldtune.studies.trials.reading import StudyReader, find_dataset, read_study
from coldtune.yaml_files import parse_yaml, read_yaml

CONFIG_FILE = "config.yaml"
_RUN_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Home:
    """A home in which finished trials are looked up.

    Attributes:
        data_dir: The folder of a dataset's published files, if it must be prepared.
        tracking_uri: The MLflow server of its runs, if it is not the home's own.
        store: The store of the finished work, if it is not the home's own.
        anew: True if the trial is computed anew, so that its restorer is not needed.
    """

    path: Path
    data_dir: Path | None = None
    tracking_uri: str | None = None
    store: StoreLocation | None = None
    anew: bool = False


def find_run(name: str, home: Home) -> FinishedTrial:
    """Return the finished trial that `name` refers to.

    Args:
        name: `STUDY/NUMBER`, `STUDY/2.1` for a further training of setting 2, or `STUDY` for the best trial, or the
            first training of the best setting. Otherwise the 32 hex digits of an MLflow run, or the path
            of a trial's config.yaml or of its folder.

    Raises:
        ValueError: If there is no such trial, or if it has not finished.
    """
    if (of_study := split_name(name, home.path)) is not None:
        return _trial_of_study(*of_study, home)
    if is_run_id(name):
        if (run := _trial_of_run(name, home)) is not None:
            return run
        return _trial_of_config(parse_yaml(read_logged(name, CONFIG_FILE, home), f"{name}: {CONFIG_FILE}"), name, home)
    path = Path(os.path.expanduser(name))  # Path.expanduser would raise an error about an unknown user
    if path.exists():
        return _trial_of_config(_read_config(path / CONFIG_FILE if path.is_dir() else path), name, home)
    there = ", ".join(folder.name for folder in studies(home.path)) or "none"
    raise ValueError(
        f"{name}: no such run; allowed: STUDY/NUMBER or STUDY of {home.path} (there are: {there}), an MLflow run id of "
        f"32 digits, or the path of a trial's {CONFIG_FILE}"
    )


def is_run_id(name: str) -> bool:
    """Return True if a name has the form of an MLflow run id."""
    return _RUN_ID.fullmatch(name) is not None


def read_logged(run_id: str, name: str, home: Home) -> str:
    """Return a text file of a trial's MLflow run, from the servers that may have the runs of a home.

    Args:
        name: The path of the file in the run's artifacts.

    Raises:
        ValueError: If no server knows the run, or the run has no such file.
    """
    return tracking.logged_file(run_id, name, _tracking_uris(home))


def _trial_of_run(run_id: str, home: Home) -> FinishedTrial | None:
    """Return the trial of a study of this home that has an MLflow run. None if there is none.

    The study knows more of the trial than the run does, for example on how many threads it was computed.
    """
    for folder in studies(home.path):
        number = tracking.find_trial_of_run(folder.spool, run_id)
        if number is None:
            continue
        try:
            reader = read_study(folder)
            label = reader.label(number)
            named = reader.find(label)
        except (ValueError, IndexError):  # the study cannot be read, or has lost the trial, but the run is there
            return None
        # A failed trial that was asked again gave its name to the later trial.
        return _trial_of_study(folder, label, home) if named is not None and named.number == number else None
    return None


def split_name(name: str, home: Path) -> tuple[StudyFolder, str] | None:
    """Return the study that the name of a trial refers to, and the trial's name in it. None if it names no study."""
    study, _, number = name.partition("/")
    if not study or study.startswith(".") or not re.fullmatch(r"(\d+(\.\d+)?)?", number):
        return None
    folder = StudyFolder(home, study)
    return (folder, number) if folder.exists else None


def _trial_of_study(folder: StudyFolder, number: str, home: Home) -> FinishedTrial:
    reader = read_study(folder)
    trial = _finished_trial(reader, folder.name, number) if number else reader.best()
    if trial is None:
        raise ValueError(f"{folder.name}: none of its {len(reader.trials())} trials has finished")
    fingerprint = folder.start()["fingerprint"]
    config = reader.config(trial)
    dataset = find_dataset(folder, reader.spec, fingerprint)
    return FinishedTrial(
        f"{folder.name}/{reader.label(trial.number)}", config, dataset, _source(config, home), _computed(reader, trial)
    )


def _computed(reader: StudyReader, trial: FrozenTrial) -> tuple[Compute | None, ...]:
    """Return how the work of a trial was computed. A study of unknown threads may have used unknown work."""
    recorded = TrialRecord.of(trial).computed
    known = () if recorded is None else (parse(Compute, recorded, "computed"),)
    return known if known and reader.spec.threads is not None else (*known, None)


def _finished_trial(reader: StudyReader, study: str, number: str) -> FrozenTrial:
    trial = reader.find(".".join(str(int(part)) for part in number.split(".")))
    if trial is None or trial.state == TrialState.WAITING:
        asked = [reader.label(trial.number) for trial in reader.trials() if trial.state != TrialState.WAITING]
        raise ValueError(f"{study}/{number}: no such trial; there are {', '.join(asked) or 'none'}")
    if trial.state != TrialState.COMPLETE:
        states = {TrialState.FAIL: "failed", TrialState.PRUNED: "was pruned"}
        reason = f" ({reason})" if (reason := TrialRecord.of(trial).reason) else ""
        state = states.get(trial.state, "has not finished")
        again = reader.retried().get(trial.number)
        instead = "" if again is None else f" (it was asked again as trial {reader.label(again)})"
        raise ValueError(f"{study}/{number}: {state}{reason}; only a finished trial can be used{instead}")
    return trial


def _trial_of_config(tree: Any, name: str, home: Home) -> FinishedTrial:
    try:
        config = parse_trial(tree)
    except ValueError as error:
        raise ValueError(f"{name}: not the {CONFIG_FILE} of a trial: {error}") from None
    return FinishedTrial(name, config, _dataset(config, name, home), _source(config, home))


def _dataset(config: TrialConfig, name: str, home: Home) -> Dataset:
    store = Store(home.store or StoreLocation.in_home(home.path, None))
    if not (home.anew or store.files.list("train")):  # before a dataset is downloaded in vain
        raise ValueError(f"{name}: {store.at.shown} holds no restorers. Name the home of this trial with --home.")
    return prepare(config.data, home.path, home.data_dir)


def _source(config: TrialConfig, home: Home) -> Dataset | None:
    """Return the dataset that the degradation draws from, prepared as the trial's own dataset."""
    name = source_of(config.degradation)
    return (
        None if name is None else prepare({**plain(config.data), "name": name, "path": None}, home.path, home.data_dir)
    )


def _read_config(path: Path) -> dict[str, Any]:
    if path.is_dir() or not path.exists():
        raise ValueError(f"{path}: no such file. A trial's folder holds its {CONFIG_FILE}.")
    return read_yaml(path)


def _tracking_uris(home: Home) -> list[str]:
    """Return the MLflow servers that may have the runs of a home: the user's, or those of the home's studies."""
    named = home.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
    if named:
        return [Passwords.read(None).complete(at_folder(named, Path.cwd()))]
    own = [tracking.default_uri(home.path)] if (home.path / "mlflow.db").exists() else []
    others = []
    for folder in studies(home.path):
        try:
            others.append(folder.tracking_uri())
        except ValueError:  # an unreadable study must not hide the others
            continue
    return list(dict.fromkeys([*own, *filter(None, others)]))

"""Find out which entries of a store the studies of a home need."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from coldtune.cli.entry import describe
from coldtune.cli.store_lookup import belongs_to_home
from coldtune.store.gc import Retention, mentioned_names
from coldtune.store.store import Store
from coldtune.studies.spec.folder import StudyFolder, studies
from coldtune.studies.storage.backends import load_started_study

_CLOCK_DIFFERENCE_S = 3600.0  # between the hosts of a study, at most


def find_users(home: Path, store: Store) -> tuple[Retention, list[str]]:
    """Return the rules that keep everything that the studies of a home need.

    A study needs the entries of every trial that did not fail. If the store is not the home's own, other homes may use
    it too. Then everything that a study of another home has recorded to use is also needed.

    The needs of a study that cannot be read are not known. Everything that it has recorded to use is needed, and
    everything that was made since it began.

    Returns:
        The rules, and a sentence for each study that cannot be read.
    """
    mentions: dict[str, set[str]] = {}
    failed: dict[str, set[str]] = {}
    unknown: set[str] = set()
    since, unreadable, only_user = math.inf, [], belongs_to_home(home, store.at)
    for folder in studies(home):
        try:
            trials, attributes = _read_study(folder)
        except Exception as error:  # a damaged journal or database makes Optuna raise all kinds of errors
            unreadable.append(f"study {folder.name}: {describe(error)}")
            unknown.add(folder.name)
            since = min(since, _begun(folder) - _CLOCK_DIFFERENCE_S)
            continue
        failed[folder.name] = {str(trial.number) for trial in trials if trial.state == TrialState.FAIL}
        for trial in trials:
            if trial.state == TrialState.RUNNING and trial.datetime_start:
                since = min(since, trial.datetime_start.timestamp() - _CLOCK_DIFFERENCE_S)
        needed = [attributes, *(trial.user_attrs for trial in trials if trial.state != TrialState.FAIL)]
        for name in mentioned_names(needed):
            mentions.setdefault(name, set()).add(folder.name)

    def counts(user: str) -> bool:
        study, _, trial = user.partition("/")
        if study in unknown:
            return True
        if study not in failed:
            return not trial or not only_user
        return not trial or trial not in failed[study]

    return Retention(mentions, since, counts), unreadable


def _read_study(folder: StudyFolder) -> tuple[Sequence[FrozenTrial], dict[str, Any]]:
    """Return the trials and the attributes of a study, read from its storage alone."""
    study = load_started_study(folder.path, folder.name, folder.storage())
    return study.get_trials(deepcopy=False), study.user_attrs


def _begun(folder: StudyFolder) -> float:
    """Return when a study began, in seconds since 1970. Its oldest file cannot be older."""
    try:
        times = [entry.stat(follow_symlinks=False).st_mtime for entry in os.scandir(folder.path)]
    except OSError:
        return 0.0
    return min(times, default=0.0)

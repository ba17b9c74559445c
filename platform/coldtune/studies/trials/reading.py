"""Reading a study without running it."""

from __future__ import annotations

from pathlib import Path

from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from coldtune.config import parse
from coldtune.data import Dataset, prepared
from coldtune.readback import checked, unreadable
from coldtune.store.location import StoreLocation
from coldtune.store.store import Store
from coldtune.studies.drivers.election import DriverLease
from coldtune.studies.drivers.registry import registry_of
from coldtune.studies.drivers.sole import SoleDriver
from coldtune.studies.space.space import Space
from coldtune.studies.spec.folder import StudyFolder
from coldtune.studies.spec.study import SPEC_FILE, StudySpec
from coldtune.studies.storage.backends import load_started_study
from coldtune.studies.storage.record import StudyRecord, is_imported
from coldtune.studies.storage.trial_cache import TrialCache
from coldtune.studies.trials.ownership import TrialOwnership


class StudyReader:
    """A stored study, for reading.

    Imported trials are known to the search, but this study did not ask them and does not count them.
    """

    def __init__(
        self,
        study: Study,
        spec: StudySpec,
        space: Space,
        lease: DriverLease | SoleDriver,
        store: StoreLocation | None = None,
    ) -> None:
        """Create a reader of a study.

        Args:
            lease: Tells which other drivers are alive.
            store: Where the finished work of the trials lies. None if nobody asks for it.
        """
        self.study, self.spec, self.space, self.lease, self.store = study, spec, space, lease, store
        self.ownership = TrialOwnership(study, self.unfinished, lease)
        self._trials = TrialCache(study)
        self._best: FrozenTrial | None = None
        self._imported = 0

    def trials(self) -> list[FrozenTrial]:
        """Return all trials in the order in which they were asked."""
        self._refresh()
        return self._trials.all()

    def unfinished(self) -> list[FrozenTrial]:
        """Return the trials that have not ended, by number."""
        self._refresh()
        return self._trials.unfinished()

    def finished(self) -> int:
        """Return how many trials of this study have ended in any state.

        Imported trials do not count, nor do failed trials that are asked again under another number.
        """
        self._refresh()
        return self._trials.ended - self._imported - len(self._trials.retried)

    def retried(self) -> dict[int, int]:
        """Return the failed trials that are asked again: the number of the new trial, by that of the failed trial."""
        self._refresh()
        return dict(self._trials.retried)

    def failed(self) -> list[FrozenTrial]:
        """Return the trials of this study that failed and were not asked again, by number."""
        self._refresh()
        if not self._trials.states.get(TrialState.FAIL):
            return []
        mine = (trial for trial in self._trials.all() if trial.state == TrialState.FAIL and not is_imported(trial))
        return [trial for trial in mine if trial.number not in self._trials.retried]

    def has_results(self) -> bool:
        """Return True if a trial of this study was measured to its end, or was pruned on the way."""
        self._refresh()
        measured = (TrialState.COMPLETE, TrialState.PRUNED)
        return any(trial.state in measured and not is_imported(trial) for trial in self._trials.all())

    def imported(self) -> int:
        """Return how many trials came from other studies."""
        self._refresh()
        return self._imported

    def states(self) -> dict[TrialState, int]:
        """Return how many trials are in each state."""
        self._refresh()
        return dict(self._trials.states)

    def interrupted(self) -> list[int]:
        """Return the numbers of the running trials whose driver is dead."""
        return [trial.number for trial in self.ownership.abandoned()]

    def best(self, but: int | None = None) -> FrozenTrial | None:
        """Return the completed trial with the best first objective, leaving out the trial `but`. None if there is none.

        Of equally good trials, the earlier is the best.
        """
        self._refresh()
        if but is None:
            return self._best
        complete = [t for t in self._trials.all() if t.state == TrialState.COMPLETE and t.number != but]
        return min(complete, key=self.rank, default=None)

    def front(self) -> list[FrozenTrial]:
        """Return the completed trials that no other trial beats in all objectives. With one objective: the best."""
        if len(self.spec.objectives) > 1:
            return sorted(self.study.best_trials, key=lambda trial: trial.values[0])
        best = self.best()
        return [best] if best else []

    def rank(self, trial: FrozenTrial) -> tuple[float, int]:
        """Return the key by which completed trials are sorted, from the best to the worst."""
        sign = 1 if self.spec.objective.direction == "minimize" else -1
        return sign * trial.values[0], trial.number

    def local_folder(self, address: str) -> Path:
        """Return the local folder of an address in a trial's record.

        Raises:
            OSError: If the folder cannot be fetched from the store.
            ValueError: If the entry is no longer in the store, or the store is not known.
        """
        address = self.present_address(address)
        if "://" not in address:
            return Path(address)
        if self.store is None:
            raise ValueError(f"{address}: the study does not know its store")
        return Store(self.store).at_address(address)

    def present_address(self, address: str) -> str:
        """Return the present address of an entry of the store, which may have been moved or copied with its home."""
        return address if self.store is None else Store(self.store).present_address(address)

    def _refresh(self) -> None:
        """Read what this process and others have told since the last look."""
        ended = self._trials.refresh()
        self._imported += sum(map(is_imported, ended))
        complete = [trial for trial in ended if trial.state == TrialState.COMPLETE]
        self._best = min([*complete, *([self._best] if self._best else [])], key=self.rank, default=None)


def read_study(folder: StudyFolder) -> StudyReader:
    """Open a study that was started, to read it. No part of the search is built, and the space is not checked again.

    Raises:
        ValueError: If a file of the study is damaged, belongs to another study or is missing, or if the dataset of the
            study is no longer in the home. The message names it.
    """
    spec, start = folder.spec(), folder.start()
    url = folder.storage()
    study = load_started_study(folder.path, folder.name, url)
    check_unchanged(study, spec, folder)
    dataset = find_dataset(folder, spec, start["fingerprint"])
    space = Space(spec.space, spec.base, dataset.image_shape)
    lease = DriverLease(registry_of(study, folder.path, url))
    return StudyReader(study, spec, space, lease, folder.store())


def check_unchanged(study: Study, spec: StudySpec, folder: StudyFolder) -> None:
    """Raise ValueError if spec.yaml is not the spec with which the stored study was set up."""
    stored = StudyRecord.of(study).spec
    if stored is None:
        return  # its driver died before it had set the study up
    path = folder.path / SPEC_FILE
    there = checked(f"study {folder.name}: the spec in its storage", lambda: parse(StudySpec, stored))
    if differences := spec.differences(there):
        more = f" (and {len(differences) - 1} more)" if len(differences) > 1 else ""
        raise unreadable(
            path,
            f"is not the spec of this study's trials. {differences[0]} in the study's storage{more}",
            "Restore it.",
        )


def find_dataset(folder: StudyFolder, spec: StudySpec, fingerprint: str) -> Dataset:
    """Return the prepared dataset of a study. Raise ValueError, with the reason, if the home has it no longer."""
    name, problems = spec.base["data"]["name"], []
    for path in prepared(folder.home, name):
        try:
            dataset = Dataset.open(path)
        except ValueError as error:  # another prepared folder may be the right dataset
            problems.append(str(error))
            continue
        if dataset.fingerprint == fingerprint:
            return dataset
    why = f" ({'; '.join(problems)})" if problems else ""
    raise ValueError(f"study {folder.name}: its dataset {name} is no longer in {folder.home}/data{why}")


def summary(folder: StudyFolder) -> tuple[str, str, str, str, str, str]:
    """Return a study's row of the list of studies.

    Returns:
        The name, the dataset, how many trials have ended (and were imported), how many there shall be, the best value,
        and the drivers that run the study now, as text.
    """
    reader, start = read_study(folder), folder.start()
    best, metric = reader.best(), reader.spec.objective.metric.upper()
    text = f"{metric} {best.values[0]:.4g} (trial {best.number})" if best else "-"
    dataset = str(reader.spec.base["data"]["name"])
    ended = f"{reader.finished()}" + (f" + {reader.imported()} imported" if reader.imported() else "")
    drivers = ", ".join(map(str, reader.lease.others()))
    return folder.name, dataset, ended, str(start["trials"]), text, drivers or "-"

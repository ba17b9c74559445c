"""Reading a study without running it."""

from __future__ import annotations

from pathlib import Path

from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from coldtune.addresses import redact
from coldtune.data import Dataset, prepared
from coldtune.store.location import StoreLocation
from coldtune.store.store import Store
from coldtune.studies.drivers.election import DriverLease
from coldtune.studies.drivers.registry import registry_of
from coldtune.studies.drivers.sole import SoleDriver
from coldtune.studies.space.space import Space
from coldtune.studies.spec.folder import StudyFolder
from coldtune.studies.spec.study import StudySpec
from coldtune.studies.storage.backends import open_storage, stored_study
from coldtune.studies.storage.record import is_imported
from coldtune.studies.storage.trial_cache import TrialCache
from coldtune.studies.trials.ownership import TrialOwnership
from coldtune.studies.trials.setup import open_study


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
        """Return how many trials of this study have ended in any state, without the imported ones."""
        self._refresh()
        return self._trials.ended - self._imported

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
        ValueError: If the dataset of the study is no longer in the home.
    """
    spec, start = folder.spec(), folder.start()
    for path in prepared(folder.home, spec.base["data"]["name"]):
        dataset = Dataset.open(path)
        if dataset.fingerprint == start["fingerprint"]:
            space = Space(spec.space, spec.base, dataset.image_shape)
            url = folder.storage()
            study = _open_stored(folder, spec, url)
            lease = DriverLease(registry_of(study, folder.path, url))
            return StudyReader(study, spec, space, lease, folder.store())
    raise ValueError(f"study {folder.name}: its dataset {spec.base['data']['name']} is no longer in {folder.home}/data")


def _open_stored(folder: StudyFolder, spec: StudySpec, url: str | None) -> Study:
    """Open a stored study. A missing database is an error, because looking at a study creates nothing."""
    if url is None:
        return open_study(folder.name, spec, open_storage(folder.path))
    study = stored_study(folder.path, folder.name, url)
    if study is None:
        raise ValueError(f"study {folder.name}: is not in its database {redact(url)}")
    return study


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

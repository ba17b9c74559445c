"""Reading a study without running it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from coldtune.config import parse
from coldtune.data import Dataset, prepared
from coldtune.data.errors import prepare_command
from coldtune.readback import checked, unreadable
from coldtune.stages.trial import TrialConfig
from coldtune.store.location import StoreLocation
from coldtune.store.store import Store
from coldtune.studies.drivers.election import DriverLease
from coldtune.studies.drivers.registry import registry_of
from coldtune.studies.drivers.sole import SoleDriver
from coldtune.studies.search.pareto import fronts
from coldtune.studies.space.space import Space
from coldtune.studies.spec.folder import StudyFolder
from coldtune.studies.spec.study import SPEC_FILE, StudySpec
from coldtune.studies.storage.backends import load_started_study
from coldtune.studies.storage.record import StudyRecord, is_imported, is_requested
from coldtune.studies.storage.settings import Setting, Spread, comparable
from coldtune.studies.storage.trial_cache import TrialCache
from coldtune.studies.trials.ownership import TrialOwnership
from coldtune.studies.trials.race import RaceStanding, StudyRace, race_plan
from coldtune.studies.trials.replication import configure
from coldtune.verdicts import Plan


class StudyReader:
    """A stored study, for reading.

    Imported trials are known to the search, but this study did not ask them and does not count them.

    Attributes:
        replicates: How many trainings each setting has in the end. With one, a setting is a trial. In a race, it is the
            most that a setting can get.
        race: The race of the study. None for a fixed number of trainings.
    """

    def __init__(
        self,
        study: Study,
        spec: StudySpec,
        space: Space,
        lease: DriverLease | SoleDriver,
        store: StoreLocation | None = None,
        replicates: int = 1,
    ) -> None:
        """Create a reader of a study.

        Args:
            lease: Tells which other drivers are alive.
            store: Where the finished work of the trials lies. None if nobody asks for it.
            replicates: See the attribute.
        """
        self.replicates = replicates
        self.study, self.spec, self.space, self.lease, self.store = study, spec, space, lease, store
        self.ownership = TrialOwnership(study, self.unfinished, lease)
        self._trials = TrialCache(study)
        self._best: FrozenTrial | None = None  # of a study of one replicate
        self._imported = 0
        self._read = False
        self.race = None if spec.race is None else StudyRace(spec, space, self.local_folder)

    def plan(self) -> Plan:
        """Return the looks at the settings: those of a race, or the trainings with which the study began.

        Each larger number of trainings that was asked for later is a further look.
        """
        if self.race is not None:
            return race_plan(self.race.ends)
        looks: list[int] = []
        for planned in StudyRecord.of(self.study).replicates or (self.replicates,):
            if not looks or planned > looks[-1]:
                looks.append(planned)
        return Plan(tuple(looks))

    def trials(self) -> list[FrozenTrial]:
        """Return all trials in the order in which they were asked."""
        self._refresh()
        return self._trials.all()

    def unfinished(self) -> list[FrozenTrial]:
        """Return the trials that have not ended, by number."""
        self._refresh()
        return self._trials.unfinished()

    @property
    def replicated(self) -> bool:
        """True if settings have several trainings, so that tables show settings and not trials."""
        if self.replicates == 1 and not self._read:
            self._refresh()
        return self.replicates > 1 or self._trials.index.replicated

    def settings(self) -> list[Setting]:
        """Return the settings of the study by number, also those that were imported or wait to be asked."""
        self._refresh()
        return self._trials.settings()

    def label(self, number: int) -> str:
        """Return the name of a trial for users: `2` for replicate 0 of setting 2, `2.1` for the next.

        Args:
            number: The number of the trial, as Optuna counts trials.
        """
        if number >= len(self._trials.all()):
            self._refresh()
        return self._trials.index.label(number)

    def find(self, name: str) -> FrozenTrial | None:
        """Return the trial with a name such as `2` or `2.1`, or None if there is none.

        A failed replicate and the trial that was asked in its place have the same name. Then it is the later trial.
        """
        return next((trial for trial in reversed(self.trials()) if self.label(trial.number) == name), None)

    def config(self, trial: FrozenTrial) -> TrialConfig:
        """Return the configuration of a trial, with the training seed of its replicate."""
        return configure(self.space, trial)

    def finished(self) -> int:
        """Return how many settings of this study have ended, with all their trainings in any state.

        With one replicate, these are the trials that have ended. Imported trials do not count, nor do failed trials
        that are asked again under another number.
        """
        self._refresh()
        if not self.replicated:
            return self.ended()
        return sum(not self.missing(each) for each in self._own_settings())

    def ended(self) -> int:
        """Return how many trials of this study have ended: every training, without those that were asked again."""
        self._refresh()
        return self._trials.ended - self._imported - len(self._trials.retried)

    def begun(self) -> int:
        """Return how many settings of this study were asked, or wait because something else than the search asked.

        With one replicate, these are trials. They are counted as `--trials` counts them.
        """
        self._refresh()
        if self.replicated:
            own = [each for each in self._trials.settings() if not each.imported]
            return sum(each.asked or any(map(is_requested, each.trials.values())) for each in own)
        retried = self._trials.retried
        trials = [each for each in self._trials.all() if not is_imported(each) and each.number not in retried]
        return sum(each.state != TrialState.WAITING or is_requested(each) for each in trials)

    def settled(self) -> bool:
        """Return True if the study ended before its last setting, because its search had settled."""
        return StudyRecord.of(self.study).settled == self.finished()

    def open_replicates(self, setting: Setting) -> list[int]:
        """Return the replicates of a setting that are still to be asked. In a race, those before its next look."""
        if self.race is None:
            return setting.open(self.replicates)
        standing = self.standing()
        return [] if standing is None else setting.open_in_race(standing.target(setting.number), self.replicates)

    def missing(self, setting: Setting) -> int:
        """Return how many trainings of a setting are still to be asked or are running."""
        return len(self.open_replicates(setting)) + len(setting.running())

    def standing(self) -> RaceStanding | None:
        """Return the study's race after the trainings so far. None if it has no race, or its judgements are gone."""
        if self.race is None:
            return None
        if not self._read:
            self._refresh()
        try:
            return self.race.standing(self._trials.settings())
        except (OSError, ValueError):
            return None

    def race_goes_on(self) -> bool:
        """Return True if the study races, and a setting waits for a training before the next look."""
        if self.race is None or (standing := self.standing()) is None:
            return False
        waiting = len(standing.judged.members) > len(standing.judged.names)  # settings that were not asked yet
        return waiting or any(self.missing(setting) for setting in self._own_settings())

    def comparable_settings(self) -> list[Setting]:
        """Return the settings that may be called the best: in a race, those that are not worse than another."""
        self._refresh()
        settings = self._trials.settings()
        if (standing := self.standing()) is None:
            return comparable(settings)
        enough = [each for each in settings if not each.pruned and len(each.finished) >= standing.first]
        left = [each for each in enough if each.number in standing.rivals] or enough
        return left or comparable(settings)

    def ranked_settings(self) -> list[Setting]:
        """Return the comparable settings from the best to the worst. In a race, those that are out follow."""
        ranked = sorted(self.comparable_settings(), key=self.rank_setting)
        if self.race is None:
            return ranked
        numbers = {setting.number for setting in ranked}
        out = [each for each in self._trials.settings() if each.finished and each.number not in numbers]
        return [*ranked, *sorted(out, key=self.rank_setting)]

    def trainings(self, trials: int) -> int:
        """Return how many trials there are in all, if the study has `trials` settings and prunes no more of them.

        In a race, it is the most that there can be.
        """
        if not self.replicated:
            return trials
        asked = self._own_settings()
        missing = sum(self._may_come(setting) for setting in asked)
        return self.ended() + missing + max(0, trials - len(asked)) * self.replicates

    def _may_come(self, setting: Setting) -> int:
        """Return how many trainings of a setting may still end."""
        standing = self.standing()
        if standing is None or standing.standing.over or standing.is_decided(setting.number):
            return self.missing(setting)
        return len(setting.open_in_race(self.replicates, self.replicates)) + len(setting.running())

    def _own_settings(self) -> list[Setting]:
        return [setting for setting in self._trials.settings() if setting.asked and not setting.imported]

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

        With replicates, it is the first finished training of the best setting. Of equally good trials, the earlier is
        the best.

        Args:
            but: The number of a trial, as Optuna counts trials. Its setting is left out.
        """
        self._refresh()
        left_out = None if but is None else (self._trials.index.place(but)[0] if self.replicated else but)
        best = self.best_setting(left_out)
        return None if best is None else next(iter(best.finished.values()))

    def best_setting(self, but: int | None = None) -> Setting | None:
        """Return the setting with the best mean of the first objective. None if none has finished.

        Only settings with a mean, and with at least half as many trainings as any other, are compared.

        Args:
            but: The number of a setting that is left out.
        """
        self._refresh()
        if not self.replicated:
            return self._best_of_single(but)
        settings = self.comparable_settings()
        return min((each for each in settings if each.number != but), key=self.rank_setting, default=None)

    def _best_of_single(self, but: int | None) -> Setting | None:
        best = self._best
        if but is not None:
            complete = (t for t in self._trials.all() if t.state == TrialState.COMPLETE and t.number != but)
            best = min(complete, key=self.rank, default=None)
        return None if best is None else Setting(best.number, best, {0: best})

    def front(self) -> list[Setting]:
        """Return the settings that no other setting beats in all objectives. With one objective: the best."""
        if len(self.spec.objectives) == 1:
            best = self.best_setting()
            return [best] if best else []
        if self.replicated:
            settings = self.comparable_settings()
        else:
            complete = (trial for trial in self.trials() if trial.state == TrialState.COMPLETE)
            settings = [Setting(trial.number, trial, {0: trial}) for trial in complete]
        if not settings:
            return []
        signs = [1 if objective.direction == "minimize" else -1 for objective in self.spec.objectives]
        means = [[sign * Spread.of(each.values(i)).mean for i, sign in enumerate(signs)] for each in settings]
        ranks = fronts(np.asarray(means, dtype=np.float64))
        best_ones = [each for each, rank in zip(settings, ranks, strict=True) if rank == 0]
        return sorted(best_ones, key=lambda each: Spread.of(each.values()).mean)

    def rank(self, trial: FrozenTrial) -> tuple[float, int]:
        """Return the key by which completed trials are sorted, from the best to the worst."""
        sign = 1 if self.spec.objective.direction == "minimize" else -1
        return sign * trial.values[0], trial.number

    def rank_setting(self, setting: Setting) -> tuple[float, int]:
        """Return the key by which settings with finished trainings are sorted, from the best to the worst."""
        sign = 1 if self.spec.objective.direction == "minimize" else -1
        return sign * Spread.of(setting.values()).mean, setting.number

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
        self._read = True
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
    planned = StudyRecord.of(study).replicates
    return StudyReader(study, spec, space, lease, folder.store(), planned[-1] if planned else spec.replicates)


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
    data, problems = spec.base["data"], []
    name = data["name"]
    for path in prepared(folder.home, name):
        try:
            dataset = Dataset.open(path)
        except ValueError as error:  # another prepared folder may be the right dataset
            problems.append(str(error))
            continue
        if dataset.fingerprint == fingerprint:
            return dataset
    why = f" ({'; '.join(problems)})" if problems else ""
    again = prepare_command(folder.home, name, data["image_size"], data["resize"])
    raise ValueError(
        f"study {folder.name}: its dataset {name} with the fingerprint {fingerprint[:12]} is no longer in "
        f"{folder.home}/data{why}. Prepare it again with `{again}`"
    )

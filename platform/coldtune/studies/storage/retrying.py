"""A study in a database that may go away for a while: waited for, and told what it missed, once."""

from __future__ import annotations

import copy
import logging
import os
import time
import uuid
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, TypeVar

from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from coldtune.retrying import pauses
from coldtune.studies.storage.errors import PATIENCE_S, StorageGoneError
from coldtune.studies.storage.optuna_private import find_database_trial
from coldtune.tracking import shown

_LOG = logging.getLogger("coldtune.studies")
_PAUSE_S = (0.2, 5.0)  # between two tries: the first, the longest
_ASKED = "coldtune:asked"  # the system attribute that names the request which made a trial

T = TypeVar("T")


class PatientStorage(RDBStorage):
    """A database that is tried again for `patience` seconds whenever it does not answer; StorageGoneError after that.

    Whoever calls waits: a study's driver asks and tells no trial meanwhile, and its running trials go on until their
    next report. A call whose answer was lost may have done its work already: what is repeated has the effect of once.
    """

    def __init__(self, url: str, engine: dict[str, Any]) -> None:
        self.patience = float(os.environ.get("COLDTUNE_STORAGE_PATIENCE_S") or PATIENCE_S)
        self._tried: set[str] = set()
        self._given_up = ""  # why; whoever ends because of it shall not wait again, and says the same
        super().__init__(url, engine_kwargs=engine)

    def _create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> FrozenTrial:
        token = uuid.uuid4().hex
        template = copy.copy(template_trial) if template_trial else create_trial(state=TrialState.RUNNING)
        template.system_attrs = {**template.system_attrs, _ASKED: token}
        create = super()._create_new_trial
        try:
            return self.patiently(lambda: create(study_id, template))
        finally:
            self._tried.discard(token)

    def _get_prepared_new_trial(self, study_id: int, template_trial: FrozenTrial | None, session: Any) -> Any:
        """Called in the transaction of each try: a trial that an earlier try made is found, not made again."""
        assert template_trial is not None
        token = template_trial.system_attrs[_ASKED]
        if token in self._tried and (made := find_database_trial(session, study_id, _ASKED, token)) is not None:
            return made
        self._tried.add(token)
        return super()._get_prepared_new_trial(study_id, template_trial, session)

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        """As Optuna's; where a try was cut off, its effect is looked for first."""
        tell, look = super().set_trial_state_values, super().get_trial
        tries = 0

        def once() -> bool:
            nonlocal tries
            tries += 1
            if tries > 1:
                now = look(trial_id)
                if now.state == state and (values is None or now.values == list(values)):
                    return True
            return tell(trial_id, state, values)

        return self.patiently(once)

    def patiently(self, call: Callable[[], T]) -> T:
        """What `call` gives once the database answers; StorageGoneError after `patience` seconds without."""
        since, waits = None, pauses(*_PAUSE_S)
        while True:
            try:
                result = call()
            except Exception as error:
                if not _lost(error):
                    raise
                since = self._wait(error, since, next(waits))
            else:
                if since is not None:
                    _LOG.warning("--storage: answers again, after %.0f s; the study goes on", time.monotonic() - since)
                return result

    def _wait(self, error: Exception, since: float | None, pause: float) -> float:
        if self._given_up:
            raise StorageGoneError(self._given_up) from error
        name = f"--storage {shown(str(self.url))}"
        if since is None:
            _LOG.warning("%s: does not answer (%s); trying again for %g s", name, _reason(error), self.patience)
        since = since or time.monotonic()
        if time.monotonic() - since + pause > self.patience:
            self._given_up = f"{name}: did not answer for {self.patience:g} s ({_reason(error)})"
            raise StorageGoneError(self._given_up) from error
        time.sleep(pause)
        return since


def _patient(name: str) -> Callable[..., Any]:
    method = getattr(RDBStorage, name)

    @wraps(method)
    def patient(self: PatientStorage, *args: Any, **kwargs: Any) -> Any:
        return self.patiently(lambda: method(self, *args, **kwargs))

    return patient


# Reading, and writing that has the same effect when it is done twice.
for _name in (
    "get_study_id_from_name", "get_study_name_from_id", "get_study_directions", "get_study_user_attrs",
    "get_study_system_attrs", "get_all_studies", "get_trial", "get_trial_id_from_study_id_trial_number",
    "get_trial_user_attrs", "get_trial_system_attrs", "get_trial_param", "get_all_trials", "_get_trials",
    "_get_best_trial_id", "set_study_user_attr", "set_study_system_attr", "set_trial_param", "_set_trial_param",
    "set_trial_intermediate_value", "set_trial_user_attr", "set_trial_system_attr",
):  # fmt: skip
    setattr(PatientStorage, _name, _patient(_name))


def _lost(error: Exception) -> bool:
    """Whether the database went away, or is not ready yet; whatever else it says will not change by waiting."""
    return isinstance(error, StorageInternalError | DBAPIError) and _behind(error) is not None


def _behind(error: BaseException) -> DBAPIError | None:
    """The lost connection behind an error of Optuna's, which may stand behind others (a rollback that fails)."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, DBAPIError) and (
            cause.connection_invalidated or isinstance(cause, OperationalError | InterfaceError)
        ):
            return cause
        cause = cause.__cause__ or cause.__context__
    return None


def _reason(error: Exception) -> str:
    """The database driver's own words, in one line."""
    behind = _behind(error)
    assert behind is not None
    text = str(behind.orig or behind).strip()
    return shown(text.splitlines()[0][:200]) if text else type(behind).__name__

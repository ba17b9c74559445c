"""A study in a database that may go away for a while."""

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

from coldtune.addresses import redact
from coldtune.retrying import pauses
from coldtune.studies.storage.errors import PATIENCE_S, StorageGoneError
from coldtune.studies.storage.optuna_private import find_database_trial

_LOG = logging.getLogger("coldtune.studies")
_PAUSE_S = (0.2, 5.0)  # between two attempts: the first pause, the longest pause
_REQUEST = "coldtune:asked"  # the system attribute that names the request which created a trial

T = TypeVar("T")


class PatientStorage(RDBStorage):
    """Optuna's database storage, which tries a call again for `patience` seconds if the database does not answer.

    After that, every call raises `StorageGoneError`. The caller waits meanwhile. So the driver asks and tells no trial,
    and running trials go on until their next report. The database may have done the work of a call whose answer was
    lost. Therefore every repeated call has the effect of a single call.
    """

    def __init__(self, url: str, engine: dict[str, Any]) -> None:
        """Connect to the database. `engine` holds arguments of SQLAlchemy's engine."""
        self.patience = float(os.environ.get("COLDTUNE_STORAGE_PATIENCE_S") or PATIENCE_S)
        self._attempted: set[str] = set()
        self._given_up = ""  # set once this storage gives up: later calls fail at once with this message
        super().__init__(url, engine_kwargs=engine)

    def _create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> FrozenTrial:
        request = uuid.uuid4().hex
        template = copy.copy(template_trial) if template_trial else create_trial(state=TrialState.RUNNING)
        template.system_attrs = {**template.system_attrs, _REQUEST: request}
        create = super()._create_new_trial
        try:
            return self.patiently(lambda: create(study_id, template))
        finally:
            self._attempted.discard(request)

    def _get_prepared_new_trial(self, study_id: int, template_trial: FrozenTrial | None, session: Any) -> Any:
        """Return the trial that an earlier attempt created, or create it. Runs in the transaction of each attempt."""
        assert template_trial is not None
        request = template_trial.system_attrs[_REQUEST]
        if request in self._attempted:
            created = find_database_trial(session, study_id, _REQUEST, request)
            if created is not None:
                return created
        self._attempted.add(request)
        return super()._get_prepared_new_trial(study_id, template_trial, session)

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        """Set the state and values of a trial. After a lost answer, check first whether they are set already."""
        set_once, read = super().set_trial_state_values, super().get_trial
        attempts = 0

        def attempt() -> bool:
            nonlocal attempts
            attempts += 1
            if attempts > 1:
                now = read(trial_id)
                if now.state == state and (values is None or now.values == list(values)):
                    return True
            return set_once(trial_id, state, values)

        return self.patiently(attempt)

    def patiently(self, call: Callable[[], T]) -> T:
        """Return the result of `call` once the database answers.

        Raises:
            StorageGoneError: If it does not answer for `patience` seconds, or if an earlier call gave up.
        """
        since, waits = None, pauses(*_PAUSE_S)
        while True:
            try:
                result = call()
            except Exception as error:
                if not _is_lost_connection(error):
                    raise
                since = self._wait(error, since, next(waits))
            else:
                if since is not None:
                    _LOG.warning("--storage: answers again, after %.0f s; the study goes on", time.monotonic() - since)
                return result

    def _wait(self, error: Exception, since: float | None, pause: float) -> float:
        """Sleep before the next attempt, and return when the database was lost."""
        if self._given_up:
            raise StorageGoneError(self._given_up) from error
        name = f"--storage {redact(str(self.url))}"
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


# Calls that read, and calls that write with the same effect if they are repeated.
for _name in (
    "get_study_id_from_name", "get_study_name_from_id", "get_study_directions", "get_study_user_attrs",
    "get_study_system_attrs", "get_all_studies", "get_trial", "get_trial_id_from_study_id_trial_number",
    "get_trial_user_attrs", "get_trial_system_attrs", "get_trial_param", "get_all_trials", "_get_trials",
    "_get_best_trial_id", "set_study_user_attr", "set_study_system_attr", "set_trial_param", "_set_trial_param",
    "set_trial_intermediate_value", "set_trial_user_attr", "set_trial_system_attr",
):  # fmt: skip
    setattr(PatientStorage, _name, _patient(_name))


def _is_lost_connection(error: Exception) -> bool:
    """Return whether the database went away, or is not ready yet. Waiting does not help against any other error."""
    return isinstance(error, StorageInternalError | DBAPIError) and _lost_connection(error) is not None


def _lost_connection(error: BaseException) -> DBAPIError | None:
    """Return the lost connection that caused an error of Optuna. Other errors may lie between, as a failed rollback."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, DBAPIError) and (
            cause.connection_invalidated or isinstance(cause, OperationalError | InterfaceError)
        ):
            return cause
        cause = cause.__cause__ or cause.__context__
    return None


def _reason(error: Exception) -> str:
    """Return the message of the database driver, in one line."""
    lost = _lost_connection(error)
    assert lost is not None
    text = str(lost.orig or lost).strip()
    return redact(text.splitlines()[0][:200]) if text else type(lost).__name__

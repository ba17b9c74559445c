"""Delivery of a spool to the tracking server. Records arrive in order and as if once, sent by one process at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import takewhile

from coldtune.tracking.first_metrics import first_values, waits_for_values
from coldtune.tracking.model_facts import ModelFacts
from coldtune.tracking.runs import TAG_STUDY_ID, Identity, RefusedError, RunGoneError, Runs
from coldtune.tracking.spool import STUDY, Record, Spool, State, advanced, check_folder, has_form

_BATCHED = {"metrics", "params", "tags"}
_FILES = {"artifact", "model"}
_BATCH_VALUES = 1000  # MLflow's own limit for one request
_MAX_ATTEMPTS = 3
_PARENT_WAIT_S = 10.0


class ParentMissingError(Exception):
    """The run of a trial's study does not exist yet and cannot be made by this process."""


def drain_spool(spool: Spool, runs: Runs, *, wait: bool = False) -> bool:
    """Deliver a spool.

    Args:
        wait: Let the first losses of a trial wait for its values, as `first_metrics` says.

    Returns:
        False if another process is delivering the spool, or if losses wait.

    Raises:
        Exception: Any exception of the MLflow client, if the server does not answer.
    """
    with spool.lock() as locked:
        if not locked:
            return False
        state = spool.state(runs.target.key, runs.target.born)
        while True:
            records, end = spool.read(state.offset)
            if not records:
                return True
            if wait and waits_for_values(spool, state.offset):
                records = list(takewhile(lambda item: item[0]["op"] != "metrics", records))
                if not records:
                    return False
                end = records[-1][1]
            spool.sync()
            try:
                state = _deliver(spool, runs, state, records)
            except RunGoneError:
                # The run was deleted, or the server's database was replaced. The whole history is sent again.
                runs.forget()
                state = spool.save(State(target=runs.target.key, born=runs.target.born))
            else:
                state = spool.save(advanced(state, end))


def _deliver(spool: Spool, runs: Runs, state: State, records: Sequence[tuple[Record, int]]) -> State:
    run_id = state.run_id or _find_or_create(spool, runs)
    state = spool.save(replace(state, run_id=run_id))
    first = first_values(spool, state.offset)
    if first is not None:
        _apply(spool, runs, run_id, [first])
    for group, end in _batches(records):
        if not has_form(group[0]):
            spool.reject(group[0], "it lacks a part, or a part has the wrong type")
        elif group[0]["op"] in _FILES:
            state = _upload(spool, runs, state, group[0])
        else:
            _apply(spool, runs, run_id, [record for record in group if record != first])
        state = spool.save(advanced(state, end))
    return state


def _batches(records: Sequence[tuple[Record, int]]) -> Iterator[tuple[list[Record], int]]:
    """Yield batches of successive records that fit into a request, each with the offset after it.

    Metrics, parameters and tags are batched. Every other record, and each damaged record, is a batch of its own.
    """
    group: list[Record] = []
    values, last = 0, 0
    for record, end in records:
        batched = record["op"] in _BATCHED and has_form(record)
        count = len(record["values"]) if batched else 0
        if group and (not batched or values + count > _BATCH_VALUES):
            yield group, last
            group, values = [], 0
        if batched:
            group.append(record)
            values, last = values + count, end
        else:
            yield [record], end
    if group:
        yield group, last


def _apply(spool: Spool, runs: Runs, run_id: str, group: list[Record]) -> None:
    if not group:
        return
    try:
        if group[0]["op"] in _BATCHED:
            runs.log(run_id, group)
        elif group[0]["op"] == "end":
            runs.end(run_id, group[0])
        elif group[0]["op"] == "dataset":
            runs.dataset(run_id, group[0])
        elif group[0]["op"] == "resume":
            runs.resume(run_id)
    except RefusedError as refused:
        if len(group) == 1:
            spool.reject(group[0], str(refused))
        for record in group if len(group) > 1 else ():  # the server refuses the whole batch for one bad record
            _apply(spool, runs, run_id, [record])


def _upload(spool: Spool, runs: Runs, state: State, record: Record) -> State:
    """Upload a file. If this fails `_MAX_ATTEMPTS` times while the server answers, set the record aside."""
    try:
        path = spool.copied_file(record["path"])
        folder = check_folder(record.get("folder", ""))
    except ValueError as error:  # not a record of ours: nothing outside the spool is ever read, sent or removed
        spool.reject(record, str(error))
        return state
    if path is None:  # it was delivered before the state was lost or belonged to another server
        return state
    assert state.run_id is not None
    try:
        if record["op"] == "model":
            runs.model(state.run_id, path, record["name"], ModelFacts.of(spool))
        else:
            runs.artifact(state.run_id, str(path), folder)
    except Exception as error:
        if not isinstance(error, RefusedError):
            if not runs.alive(state.run_id):
                raise
            state = spool.save(replace(state, attempts=state.attempts + 1))
            if state.attempts < _MAX_ATTEMPTS:
                raise
        spool.reject(record, str(error).strip()[:500])
    else:
        spool.remove_file(record["path"])
    return state


def _find_or_create(spool: Spool, runs: Runs) -> str:
    """Return the id of the spool's run on the server, after making the run if it is missing.

    The caller holds the spool's lock, so no other process makes the run at the same time.
    """
    head = spool.read(0, limit=1)[0]
    if not head or head[0][0]["op"] != "create" or not has_form(head[0][0]):
        raise ParentMissingError(f"{spool.path}: its first record does not say which run it is")
    record = head[0][0]
    identity = Identity(record["study"], record["trial"], _study_id(spool, record))
    if (run_id := runs.find(identity)) is not None:
        return run_id
    parent = None if identity.trial is None else _parent(spool, runs, identity)
    return runs.create(identity, record, parent)


def _study_id(spool: Spool, record: Record) -> str:
    """Return the identity of a run's study, "" for a study of an older version.

    The run of a trial that failed before it began is opened without tags, so the study's own spool is asked too.
    """
    tags = record.get("tags") or {}
    if TAG_STUDY_ID not in tags and spool.name != STUDY:
        head = Spool(spool.directory, STUDY).read(0, limit=1)[0]
        tags = (head[0][0].get("tags") or {}) if head else {}
    return str(tags.get(TAG_STUDY_ID, ""))


def _parent(spool: Spool, runs: Runs, trial: Identity) -> str:
    """Return the id of the study's run, after making it from the study's own spool if the server has none."""
    parent = Spool(spool.directory, STUDY)
    with parent.lock(_PARENT_WAIT_S) as locked:
        state = parent.state(runs.target.key, runs.target.born)
        if state.run_id is not None and runs.known(state.run_id):
            return state.run_id
        if locked:
            run_id = _find_or_create(parent, runs)
            parent.save(State(target=runs.target.key, run_id=run_id, born=runs.target.born))
            return run_id
    found = runs.find(Identity(trial.study, None, trial.study_id))
    if found is not None:  # another machine may have made it from its own spool
        return found
    raise ParentMissingError(
        f"{spool.name} waits: the run of its study {trial.study!r} is not on the tracking server yet"
    )

"""From spool to server: each record delivered in order, and as if once, by one process at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from coldtune.tracking.runs import Identity, RefusedError, RunGoneError, Runs
from coldtune.tracking.spool import STUDY, Record, Spool, State, advanced

_BATCHED = {"metrics", "params", "tags"}
_BATCH_VALUES = 1000  # MLflow's own limit for one request
_MAX_ATTEMPTS = 3
_PARENT_WAIT = 10.0


class ParentMissingError(Exception):
    """A run whose study's run can be neither found nor made yet."""


def drain_spool(spool: Spool, runs: Runs) -> bool:
    """Deliver one spool; False where another process holds it. Raises what the client raises in an outage."""
    with spool.lock() as held:
        if not held:
            return False
        state = spool.state(runs.target.key)
        while True:
            records, behind = spool.read(state.offset)
            if not records:
                return True
            spool.sync()
            try:
                state = _deliver(spool, runs, state, records)
            except RunGoneError:
                # Someone replaced the server's database: tell it the whole history.
                runs.forget()
                state = spool.save(State(target=runs.target.key))
            else:
                state = spool.save(advanced(state, behind))


def _deliver(spool: Spool, runs: Runs, state: State, records: Sequence[tuple[Record, int]]) -> State:
    run_id = state.run_id or _find_or_create(spool, runs)
    state = spool.save(replace(state, run_id=run_id))
    for group, behind in _groups(records):
        if group[0]["op"] == "artifact":
            state = _artifact(spool, runs, state, group[0])
        else:
            _apply(spool, runs, run_id, group)
        state = spool.save(advanced(state, behind))
    return state


def _groups(records: Sequence[tuple[Record, int]]) -> Iterator[tuple[list[Record], int]]:
    """Runs of neighbouring records that one request can carry; every other record alone."""
    group: list[Record] = []
    values, last = 0, 0
    for record, behind in records:
        batched = record["op"] in _BATCHED
        count = len(record["values"]) if batched else 0
        if group and (not batched or values + count > _BATCH_VALUES):
            yield group, last
            group, values = [], 0
        if batched:
            group.append(record)
            values, last = values + count, behind
        else:
            yield [record], behind
    if group:
        yield group, last


def _apply(spool: Spool, runs: Runs, run_id: str, group: list[Record]) -> None:
    try:
        if group[0]["op"] in _BATCHED:
            runs.log(run_id, group)
        elif group[0]["op"] == "end":
            runs.end(run_id, group[0])
        elif group[0]["op"] == "resume":
            runs.resume(run_id)
    except RefusedError as refused:
        if len(group) == 1:
            spool.reject(group[0], str(refused))
        for record in group if len(group) > 1 else ():
            _apply(spool, runs, run_id, [record])


def _artifact(spool: Spool, runs: Runs, state: State, record: Record) -> State:
    """Upload a file; one that fails again and again while the server answers must not hold up what follows."""
    path = spool.directory / record["path"]
    if not path.exists():  # delivered already, when the state was lost or held for another server
        return state
    assert state.run_id is not None
    try:
        runs.artifact(state.run_id, str(path), record["folder"])
    except Exception as error:
        if not isinstance(error, RefusedError):
            if not runs.alive(state.run_id):
                raise
            state = spool.save(replace(state, attempts=state.attempts + 1))
            if state.attempts < _MAX_ATTEMPTS:
                raise
        spool.reject(record, str(error).strip()[:500])
    else:
        spool.discard(record["path"])
    return state


def _find_or_create(spool: Spool, runs: Runs) -> str:
    """The spool's run on the server; the caller holds the spool's lock, so no other process makes it meanwhile."""
    head = spool.read(0, limit=1)[0]
    if not head or head[0][0]["op"] != "create":
        raise ParentMissingError(f"{spool.path}: does not begin with the record that says whose run it is")
    record = head[0][0]
    identity = Identity(record["study"], record["trial"])
    if (found := runs.find(identity)) is not None:
        return found
    parent = None if identity.trial is None else _parent(spool, runs, identity.study)
    return runs.create(identity, record, parent)


def _parent(spool: Spool, runs: Runs, study: str) -> str:
    """The run of the study, made from the study's own spool where the server has none yet."""
    parent = Spool(spool.directory, STUDY)
    with parent.lock(_PARENT_WAIT) as held:
        state = parent.state(runs.target.key)
        if state.run_id is not None and runs.known(state.run_id):
            return state.run_id
        if held:
            run_id = _find_or_create(parent, runs)
            parent.save(State(target=runs.target.key, run_id=run_id))
            return run_id
    if (found := runs.find(Identity(study, None))) is not None:
        return found
    raise ParentMissingError(f"{spool.name} waits: the run of its study {study!r} is not on the tracking server yet")

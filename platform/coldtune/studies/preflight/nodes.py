"""Whether every machine that trials may run on sees what they need; asked before anything is spent."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coldtune.processes import here, this_process
from coldtune.store.location import StoreLocation

_PATIENCE_S = 120.0  # until a node that does not answer is given up: it starts a process first
_SEEN_S = 10.0  # that a file written elsewhere may take to appear on a network file system
_SHARED = "on several nodes, --home must be a folder that all of them share (NFS, say)"


@dataclass(frozen=True)
class Needs:
    """What a trial reads and writes: `writes` and `reads` are folders by what they are, and the store.

    tracking: MLflow's URI; storage: the study's database, None for a journal in the home. Only the driver opens these
    two, but it, or whoever looks at them, may do so on another machine tomorrow.
    """

    writes: Mapping[str, Path]
    reads: Mapping[str, Path]
    store: StoreLocation
    tracking: str
    storage: str | None


def check(needs: Needs) -> None:
    """ValueError where a trial may run on a node of the connected cluster that lacks something of what it needs.

    Each other node with CPUs or GPUs is asked: whether it sees a file that was just written into each folder, can write
    there so that it is seen here, sees the datasets, and can use the store. On a cluster of several machines, SQLite is
    refused for tracking and storage: it locks in a way that network file systems often get wrong, and a database so
    damaged is lost. A journal is allowed: its lock is made for NFS, and it is only appended to.
    """
    import ray

    mine = ray.get_runtime_context().get_node_id()
    others = [node for node in ray.nodes() if node["Alive"] and node["NodeID"] != mine and _runs_trials(node)]
    if not others:
        return
    token = f".seen-{uuid.uuid4().hex}"
    tokens = {what: path / token for what, path in needs.writes.items() if path.is_dir()}
    names = {what: (str(path), sorted(os.listdir(path))) for what, path in needs.reads.items()}
    try:
        for path in tokens.values():
            path.write_text(token)
        reports = _ask(others, {what: str(path) for what, path in tokens.items()}, names, needs.store)
        problems = [problem for report in reports for problem in lacks(report, tokens)]
    finally:
        for path in tokens.values():
            for left in path.parent.glob(f"{token}*"):
                left.unlink(missing_ok=True)
    elsewhere = [report["name"] for report in reports if not here(report["process"])]
    if problems := [*dict.fromkeys(problems), *sqlite_files(needs, elsewhere)]:
        raise ValueError("\n".join(problems))


def lacks(report: Mapping[str, Any], tokens: Mapping[str, Path]) -> list[str]:
    """What a node lacks, a sentence for each."""
    problems = []
    for what, path in tokens.items():
        if not report["saw"][what]:
            problems.append(f"{what} {path.parent} is not the same folder on node {report['name']}; {_SHARED}")
        elif not _appears(Path(f"{path}.{report['id']}")):
            problems.append(
                f"{what} {path.parent}: what node {report['name']} writes there is not seen here; {_SHARED}"
            )
    for what, there in report["read"].items():
        if not there:
            problems.append(f"{what}: node {report['name']} does not have it where the home does; {_SHARED}")
    return [*problems, *([f"node {report['name']}: {report['store']}"] if report["store"] else [])]


def sqlite_files(needs: Needs, elsewhere: Sequence[str]) -> list[str]:
    """What is a SQLite file, where trials may run on the machines `elsewhere`."""
    flags = {
        "--tracking-uri": (needs.tracking, "http://HOST:5000, where `mlflow server` runs"),
        "--storage": (needs.storage or "", "postgresql://USER@HOST/DATABASE, or none, for a journal in the home"),
    }
    machines = ", ".join(sorted(set(elsewhere)))
    return [
        f"{flag} {uri}: an SQLite file, and trials may run on other machines ({machines}); allowed there: {allowed}"
        for flag, (uri, allowed) in flags.items()
        if elsewhere and uri.startswith("sqlite")
    ]


def _runs_trials(node: Mapping[str, Any]) -> bool:
    return bool(node["Resources"].get("CPU") or node["Resources"].get("GPU"))


def _ask(
    nodes: Sequence[Mapping[str, Any]],
    tokens: Mapping[str, str],
    names: Mapping[str, tuple[str, list[str]]],
    store: StoreLocation,
) -> list[dict[str, Any]]:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    asked = {}
    for node in nodes:
        strategy = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        remote = ray.remote(look).options(num_cpus=0, scheduling_strategy=strategy, name="coldtune_look", max_retries=0)
        name = node["NodeManagerHostname"]
        asked[remote.remote(node["NodeID"], name, dict(tokens), dict(names), store)] = name
    ready, late = ray.wait(list(asked), num_returns=len(asked), timeout=_PATIENCE_S)
    if late:
        for one in late:
            ray.cancel(one, force=True)
        raise ValueError(f"node {asked[late[0]]} did not answer within {_PATIENCE_S:.0f} s; is it alive?")
    try:
        return list(ray.get(ready))
    except ray.exceptions.RayError as error:
        last = str(error).strip().splitlines()[-1]
        raise ValueError(f"coldtune does not run on every node of the cluster: {last}") from None


def look(
    node: str, name: str, tokens: Mapping[str, str], names: Mapping[str, tuple[str, list[str]]], store: StoreLocation
) -> dict[str, Any]:
    """On a node: what it sees of the driver's tokens and folders, and of the store; leaves tokens of its own."""
    saw = {}
    for what, text in tokens.items():
        path = Path(text)
        saw[what] = _appears(path) and path.read_text() == path.name
        if saw[what]:
            with suppress(OSError):
                Path(f"{path}.{node}").write_text(name)
    try:
        store.check()
        problem = ""
    except ValueError as error:
        problem = str(error)
    read = {what: _names(path) == listed for what, (path, listed) in names.items()}
    return {"id": node, "name": name, "process": this_process(), "saw": saw, "read": read, "store": problem}


def _names(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def _appears(path: Path) -> bool:
    """Whether a file is there, now or soon; reading its folder makes an NFS client look again."""
    deadline = time.monotonic() + _SEEN_S
    while not path.exists():
        if time.monotonic() > deadline or not path.parent.is_dir():
            return False
        os.listdir(path.parent)
        time.sleep(0.2)
    return True

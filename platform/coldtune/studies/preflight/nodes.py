"""Checks that every machine of the cluster sees the folders, datasets and store that a trial uses."""

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

_ANSWER_TIMEOUT_S = 120.0  # a node starts a process before it answers
_APPEARANCE_TIMEOUT_S = 10.0  # on a network file system, a file written elsewhere may take this long to appear
_SHARED = "on several nodes, --home must be a folder that all of them share (over NFS, for example)"


@dataclass(frozen=True)
class TrialRequirements:
    """The places that a trial reads and writes.

    Attributes:
        writes: The folders that a trial writes, by a name for messages, such as `home`.
        reads: The folders that a trial reads, by a name for messages, such as `dataset digits`.
        store: The store of finished work.
        tracking: MLflow's URI. Only the driver opens it, but the driver may run on another machine tomorrow.
        storage: The URL of the study's database. None for a journal in the home. Only drivers open it, too.
    """

    writes: Mapping[str, Path]
    reads: Mapping[str, Path]
    store: StoreLocation
    tracking: str
    storage: str | None


def check_nodes(requirements: TrialRequirements) -> None:
    """Raise ValueError if a node of the connected cluster cannot run trials because it misses a requirement.

    Every other node with CPUs or GPUs is asked. Does it see a file that was just written into each folder? Can it write
    there so that the file is seen here? Does it see the datasets? Can it use the store?

    On a cluster of several machines, SQLite is refused for tracking and storage. Its locks often do not work on network
    file systems, and a damaged database is lost. A journal is allowed, because its lock is made for NFS and the file is
    only appended to.
    """
    import ray

    own_id = ray.get_runtime_context().get_node_id()
    others = [node for node in ray.nodes() if node["Alive"] and node["NodeID"] != own_id and _runs_trials(node)]
    if not others:
        return
    token = f".seen-{uuid.uuid4().hex}"
    tokens = {label: path / token for label, path in requirements.writes.items() if path.is_dir()}
    names = {label: (str(path), sorted(os.listdir(path))) for label, path in requirements.reads.items()}
    try:
        for path in tokens.values():
            path.write_text(token, encoding="utf-8")
        reports = _ask(others, {label: str(path) for label, path in tokens.items()}, names, requirements.store)
        problems = [problem for report in reports for problem in problems_of_node(report, tokens)]
    finally:
        for path in tokens.values():
            for leftover in path.parent.glob(f"{token}*"):
                leftover.unlink(missing_ok=True)
    elsewhere = [report["name"] for report in reports if not here(report["process"])]
    if problems := [*dict.fromkeys(problems), *sqlite_problems(requirements, elsewhere)]:
        raise ValueError("; ".join(problems))


def problems_of_node(report: Mapping[str, Any], tokens: Mapping[str, Path]) -> list[str]:
    """Return a sentence for each requirement that a node misses.

    Args:
        report: The result of `report_from_node` on that node.
        tokens: The file that the driver wrote into each folder.
    """
    problems = []
    for label, path in tokens.items():
        if not report["saw"][label]:
            problems.append(f"{label} {path.parent} is not the same folder on node {report['name']}; {_SHARED}")
        elif not _appears(Path(f"{path}.{report['id']}")):
            problems.append(
                f"{label} {path.parent}: a file that node {report['name']} writes there is not seen here; {_SHARED}"
            )
    for label, equal in report["read"].items():
        if not equal:
            problems.append(f"{label}: node {report['name']} does not have it at the same place as the home; {_SHARED}")
    return [*problems, *([f"node {report['name']}: {report['store']}"] if report["store"] else [])]


def sqlite_problems(requirements: TrialRequirements, elsewhere: Sequence[str]) -> list[str]:
    """Return a sentence for each SQLite file, if trials may run on the machines `elsewhere`."""
    flags = {
        "--tracking-uri": (requirements.tracking, "http://HOST:5000, where `mlflow server` runs"),
        "--storage": (
            requirements.storage or "",
            "postgresql://USER@HOST/DATABASE, or none, for a journal in the home",
        ),
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
        remote = ray.remote(report_from_node).options(
            num_cpus=0, scheduling_strategy=strategy, name="coldtune_look", max_retries=0
        )
        name = node["NodeManagerHostname"]
        asked[remote.remote(node["NodeID"], name, dict(tokens), dict(names), store)] = name
    ready, late = ray.wait(list(asked), num_returns=len(asked), timeout=_ANSWER_TIMEOUT_S)
    if late:
        for task in late:
            ray.cancel(task, force=True)
        raise ValueError(f"node {asked[late[0]]} did not answer within {_ANSWER_TIMEOUT_S:.0f} s. Is it alive?")
    try:
        return list(ray.get(ready))
    except ray.exceptions.RayError as error:
        last = str(error).strip().splitlines()[-1]
        raise ValueError(f"coldtune does not run on every node of the cluster: {last}") from None


def report_from_node(
    node: str, name: str, tokens: Mapping[str, str], names: Mapping[str, tuple[str, list[str]]], store: StoreLocation
) -> dict[str, Any]:
    """Report which of the driver's folders and datasets this node sees, and whether it can use the store.

    The function runs on a node. It leaves a file of its own beside each file of the driver.

    Args:
        node: Ray's id of this node.
        name: The name of this node for messages.
        tokens: The file that the driver wrote into each folder.
        names: The path of each dataset, and the names of its files.
        store: The store of finished work.
    """
    saw = {}
    for label, text in tokens.items():
        path = Path(text)
        saw[label] = _appears(path) and path.read_text(encoding="utf-8") == path.name
        if saw[label]:
            with suppress(OSError):
                Path(f"{path}.{node}").write_text(name, encoding="utf-8")
    try:
        store.check()
        problem = ""
    except ValueError as error:
        problem = str(error)
    read = {label: _file_names(path) == listed for label, (path, listed) in names.items()}
    return {"id": node, "name": name, "process": this_process(), "saw": saw, "read": read, "store": problem}


def _file_names(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def _appears(path: Path) -> bool:
    """Return True if a file exists or appears soon. Reading its folder makes an NFS client look at the server again."""
    deadline = time.monotonic() + _APPEARANCE_TIMEOUT_S
    while not path.exists():
        if time.monotonic() > deadline or not path.parent.is_dir():
            return False
        os.listdir(path.parent)
        time.sleep(0.2)
    return True

"""Shared fixtures. They need neither the network nor files outside the repository."""

from __future__ import annotations

import os

# Set before torch is imported. Threads do not speed up small tensors, and on a busy machine they wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# The width of tables without a terminal. A worker of xdist has 80 columns, and then the durations in a table decide
# whether a name beside them is wrapped.
os.environ["COLUMNS"] = "160"

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

import servers

if TYPE_CHECKING:
    from xdist.scheduler import Scheduling

    from coldtune.tracking import Target
    from finished_study import Finished, Replicated

_NAMES = itertools.count()
ROOT = Path(__file__).resolve().parents[1]
MAX_WORKERS = 4  # end-to-end tests start more processes, so more workers than this compete for the machine
# The folders that take longest, the longest first. A worker that starts a long folder last would finish alone.
LONGEST = ("e2e", "studies", "training", "store", "bad_inputs", "metrics", "tracking")

# The time that an example takes depends on the machine, so it must not decide whether a test passes.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run the tests marked slow (more than 20 seconds each)")
    parser.addoption("--heavy", action="store_true", help="also run the tests marked heavy (minutes each)")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for mark in ("slow", "heavy"):
        if not config.getoption(f"--{mark}"):
            for item in items:
                if item.get_closest_marker(mark):
                    item.add_marker(pytest.mark.skip(reason=f"{mark}: run with --{mark}"))
    if hasattr(config, "workerinput"):  # a worker of xdist
        items.sort(key=_longest_first)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Choose the number of worker processes. 0 runs all tests in this process.

    Only the whole suite is worth the start of workers. Heavy tests need the machine for themselves, and the output of
    workers cannot be watched with `-s`.
    """
    option = config.option
    whole = {Path(argument).resolve() for argument in config.args} == {ROOT / "tests"}
    some = option.keyword or getattr(option, "lf", False) or option.heavy or option.capture == "no"
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # Tests wait for servers and other processes a third of their time. Slow tests start whole studies, and do not.
    wanted = cpus if option.markexpr else cpus + 1
    return min(wanted, MAX_WORKERS) if whole and not some and cpus > 1 else 0


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduling:
    """Run each folder of tests/ in one worker, so that its tests share servers, studies and other fixtures."""
    from xdist.scheduler import LoadScopeScheduling

    class FolderScheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return _folder(nodeid)

    return FolderScheduling(config, log)


def _folder(nodeid: str) -> str:
    """Return the name of the folder (or file) right below tests/ that holds a test."""
    return nodeid.partition("::")[0].split("/")[1]


def _longest_first(item: pytest.Item) -> int:
    folder = _folder(item.nodeid)
    return LONGEST.index(folder) if folder in LONGEST else len(LONGEST)


@pytest.fixture(scope="session")
def root() -> Path:
    """The root folder of the repository."""
    return ROOT


@pytest.fixture
def without_uv(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let commands be printed as for users without uv, also if `uv run` runs the tests."""
    for name in ("UV", "UV_RUN_RECURSION_DEPTH"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def digits_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which the digits are prepared. Tests may read it and add entries of their own."""
    from coldtune.data import DataConfig, prepare

    home = tmp_path_factory.mktemp("home")
    prepare(DataConfig(), home, progress=False)
    return home


@pytest.fixture(scope="session")
def finished(digits_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Return a finished study. Tests may add entries to its store, each test under keys of its own."""
    from finished_study import make

    return make(tmp_path_factory.mktemp("finished"), digits_home)


@pytest.fixture(scope="session")
def replicated(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Replicated:
    """Return a finished study with three trainings of each setting. Tests may read it."""
    from finished_study import make_replicated

    return make_replicated(tmp_path_factory.mktemp("replicated"), finished)


@pytest.fixture(scope="session")
def target(tmp_path_factory: pytest.TempPathFactory) -> Target:
    """An MLflow database in SQLite, made once because that takes seconds. Each test uses its own study."""
    from coldtune.tracking import default_uri, prepare

    home = tmp_path_factory.mktemp("mlflow")
    return prepare(default_uri(home), "coldtune", home / "artifacts")


@pytest.fixture
def study() -> str:
    """Return the name of a study that no other test uses."""
    return f"study-{next(_NAMES)}"


def _server(make: Callable[[], Any]) -> Iterator[Any]:
    try:
        server = make()
    except servers.MissingError as error:
        pytest.skip(str(error))
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture(scope="session")
def postgres() -> Iterator[servers.Postgres]:
    """A PostgreSQL server. `postgres.database()` creates a database and returns its URL."""
    yield from _server(servers.Postgres)


@pytest.fixture(scope="session")
def s3() -> Iterator[servers.S3]:
    """An S3 server. `s3.url(s3.bucket())` is the URL of an empty store."""
    yield from _server(servers.S3)

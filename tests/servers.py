"""Real servers for tests. Each listens on its own loopback port and ends with its fixture."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psutil

PATIENCE = 300.0  # seconds to wait for a server to come up; long, because the machine may be busy
_BINARIES = "/usr/lib/postgresql/*/bin"  # Debian keeps initdb and postgres outside PATH


_PORTS = range(20_000, 32_000)


def free_ports(count: int) -> list[int]:
    """Return distinct ports on which nothing listens now.

    The ports lie below the range from which the kernel chooses. The kernel may hand its own choice to any process, also
    as the local port of a connection, before the server has started or while the server is down.
    """
    ports: list[int] = []
    with contextlib.ExitStack() as stack:
        for port in random.SystemRandom().sample(_PORTS, len(_PORTS)):
            if len(ports) == count:
                return ports
            probe = stack.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                ports.append(port)
    raise AssertionError(f"fewer than {count} ports are free")


def free_port() -> int:
    return free_ports(1)[0]


@contextlib.contextmanager
def refusing_port() -> Iterator[int]:
    """Yield a port that refuses connections: it is bound, so that no other process can listen there."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


class MissingError(Exception):
    """A program or package that a server needs is not installed, so tests that use the server are skipped."""


class Postgres:
    """A PostgreSQL server with password authentication and a temporary folder, which tests may kill.

    If root runs the tests, the server runs as `postgres` or `nobody`, because PostgreSQL refuses to run as root.
    """

    USER = "coldtune"

    def __init__(self) -> None:
        self.bin = _postgres_binaries()
        self.password, self.port = secrets.token_hex(16), free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))  # other users cannot enter pytest's folders
        self.process: subprocess.Popen[bytes] | None = None
        self._names = itertools.count()
        self._user = _unprivileged_user() if os.geteuid() == 0 else None
        if self._user:
            shutil.chown(self.folder, self._user)
        self._initialise()

    def start(self) -> None:
        """Start the server and wait until it answers. After `kill`, it starts again on the same data."""
        options = [
            "-p", str(self.port), "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=",
            "-c", "fsync=off", "-c", "shared_buffers=16MB",
        ]  # fmt: skip
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            self.process = self._popen("postgres", "-D", str(self.folder / "data"), *options)
            if _comes_up(self._ready, self.process, deadline):
                return
            time.sleep(0.1)  # children of a killed server may still hold its shared memory
        raise AssertionError(f"PostgreSQL did not start:\n{self.log}")

    def kill(self) -> None:
        """Kill the server with SIGKILL, as the kernel does when memory runs out. Committed data survives.

        Waits until the processes of open connections have ended too, because they answer until they notice the kill.
        """
        assert self.process is not None
        children = psutil.Process(self.process.pid).children()
        self.process.kill()
        self.process.wait()
        deadline = time.monotonic() + PATIENCE
        while any(map(_lives, children)):
            assert time.monotonic() < deadline, f"these processes have not ended: {children}"
            time.sleep(0.01)

    def database(self) -> str:
        """Create an empty database and return its URL."""
        import psycopg

        name = f"study_{next(self._names)}"
        with psycopg.connect(self._url("postgres", "postgresql"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return self._url(name)

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)  # PostgreSQL's "fast shutdown": it closes open connections
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def log(self) -> str:
        return "\n".join(path.read_text() for path in sorted(self.folder.glob("*.log")))

    def _initialise(self) -> None:
        secret = self.folder / "password"
        secret.write_text(self.password)
        if self._user:
            shutil.chown(secret, self._user)
        initdb = self._popen(
            "initdb", "-D", str(self.folder / "data"), "-U", self.USER, "--pwfile", str(secret), "--no-sync",
            "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C",
        )  # fmt: skip
        assert initdb.wait(PATIENCE) == 0, self.log

    def _popen(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                [str(self.bin / name), *arguments], stdout=log, stderr=log, cwd=self.folder, start_new_session=True,
                env={"PATH": os.environ["PATH"], "LC_ALL": "C"}, user=self._user, group=self._user,
                extra_groups=[] if self._user else None,
            )  # fmt: skip

    def _ready(self) -> bool:
        import psycopg

        with contextlib.suppress(psycopg.OperationalError):
            psycopg.connect(self._url("postgres", "postgresql"), connect_timeout=10).close()
            return True
        return False

    def _url(self, database: str, kind: str = "postgresql+psycopg") -> str:
        return f"{kind}://{self.USER}:{self.password}@127.0.0.1:{self.port}/{database}"


class S3:
    """moto's S3 server. It keeps buckets in memory and accepts any key."""

    KEY = "testing"

    def __init__(self) -> None:
        try:
            import moto.server  # noqa: F401
        except ImportError as error:
            raise MissingError(f"moto's server is not installed ({error})") from None
        self.port = free_port()
        self.endpoint = f"127.0.0.1:{self.port}"
        self.folder = Path(tempfile.mkdtemp(prefix="s3", dir="/tmp"))
        self.process: subprocess.Popen[bytes] | None = None
        self._names = itertools.count()

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables that a client needs."""
        credentials = {"AWS_ACCESS_KEY_ID": self.KEY, "AWS_SECRET_ACCESS_KEY": self.KEY}
        return {**credentials, "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true"}

    def start(self) -> None:
        """Start the server and wait until it answers."""
        with (self.folder / "s3.log").open("ab") as log:
            command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, env=os.environ | self.environment, start_new_session=True
            )
        deadline = time.monotonic() + PATIENCE
        assert _comes_up(self._ready, self.process, deadline), (self.folder / "s3.log").read_text()

    def bucket(self) -> str:
        """Create a bucket and return its name."""
        name = f"bucket-{next(self._names)}"
        request = urllib.request.Request(f"http://{self.endpoint}/{name}", method="PUT")
        urllib.request.urlopen(request, timeout=PATIENCE).close()
        return name

    def url(self, bucket: str, prefix: str = "store") -> str:
        return f"s3://{bucket}/{prefix}?scheme=http&endpoint_override={self.endpoint}"

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _ready(self) -> bool:
        with contextlib.suppress(OSError):  # refused, or no answer within the timeout
            urllib.request.urlopen(f"http://{self.endpoint}/moto-api/", timeout=10).close()
            return True
        return False


def _comes_up(ready: Callable[[], bool], process: subprocess.Popen[bytes], deadline: float) -> bool:
    """Return True once the server is ready, and False if its process ends or the deadline passes first."""
    while time.monotonic() < deadline and process.poll() is None:
        if ready():
            return True
        time.sleep(0.1)
    return False


def _lives(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False


def _postgres_binaries() -> Path:
    try:
        import psycopg  # noqa: F401
    except ImportError as error:
        raise MissingError(f"psycopg is not installed ({error})") from None
    if initdb := shutil.which("initdb"):
        return Path(initdb).parent
    folders: Sequence[Path] = sorted(Path("/").glob(_BINARIES.lstrip("/")))
    if not folders:
        raise MissingError("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    return folders[-1]


def _unprivileged_user() -> str:
    import pwd

    names = {entry.pw_name for entry in pwd.getpwall()}
    for name in ("postgres", "nobody"):
        if name in names:
            return name
    raise MissingError("PostgreSQL does not run as root, and this machine has no user `postgres` or `nobody`")

"""Real servers for tests, each started on a loopback port of its own and ended with its fixture."""

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

PATIENCE = 300.0  # seconds until a server that must come up is given up; machines may be busy
_BINARIES = "/usr/lib/postgresql/*/bin"  # where Debian keeps what it leaves out of PATH


_PORTS = range(20_000, 32_000)


def free_ports(count: int) -> list[int]:
    """Ports for servers of a test's own.

    Not what the kernel gives to whoever asks for any: that it gives to others, too, connections included, in the time
    until the server is there or while it is away.
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
    raise AssertionError(f"no {count} ports are free")


def free_port() -> int:
    return free_ports(1)[0]


@contextlib.contextmanager
def refusing_port() -> Iterator[int]:
    """A port that refuses connections: taken, so that nobody else comes to listen there, but not listened on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


class MissingError(Exception):
    """What a server needs is not on this machine: a reason to skip."""


class Postgres:
    """A PostgreSQL of its own: password authentication, a folder that disappears, and a process that may be killed.

    Run by root, it runs as `postgres` or `nobody`, since PostgreSQL refuses root.
    """

    USER = "coldtune"

    def __init__(self) -> None:
        self.bin = _postgres_binaries()
        self.password, self.port = secrets.token_hex(16), free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))  # pytest's folders are closed to other users
        self.process: subprocess.Popen[bytes] | None = None
        self._names = itertools.count()
        self._user = _unprivileged() if os.geteuid() == 0 else None
        if self._user:
            shutil.chown(self.folder, self._user)
        self._initialise()

    def start(self) -> None:
        """Start it, or start it again after `kill` on the same data; returns when it answers."""
        options = [
            "-p", str(self.port), "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=",
            "-c", "fsync=off", "-c", "shared_buffers=16MB",
        ]  # fmt: skip
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            self.process = self._popen("postgres", "-D", str(self.folder / "data"), *options)
            if _answers(self._ready, self.process, deadline):
                return
            time.sleep(0.1)  # a killed one's children may still hold its memory
        raise AssertionError(f"PostgreSQL did not start:\n{self.log}")

    def kill(self) -> None:
        """SIGKILL, as the kernel does when memory runs out: what was committed is there after `start`.

        Returns when nothing answers any more: the processes of open connections live on until they notice.
        """
        assert self.process is not None
        left = psutil.Process(self.process.pid).children()
        self.process.kill()
        self.process.wait()
        deadline = time.monotonic() + PATIENCE
        while any(map(_lives, left)):
            assert time.monotonic() < deadline, f"still there: {left}"
            time.sleep(0.01)

    def database(self) -> str:
        """The URL of a new, empty database."""
        import psycopg

        name = f"study_{next(self._names)}"
        with psycopg.connect(self._url("postgres", "postgresql"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return self._url(name)

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)  # ends connections, and itself
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
        done = self._popen(
            "initdb", "-D", str(self.folder / "data"), "-U", self.USER, "--pwfile", str(secret), "--no-sync",
            "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C",
        )  # fmt: skip
        assert done.wait(PATIENCE) == 0, self.log

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
    """moto's S3 server: buckets in memory, any key is let in."""

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
        """What a client has in its environment."""
        credentials = {"AWS_ACCESS_KEY_ID": self.KEY, "AWS_SECRET_ACCESS_KEY": self.KEY}
        return {**credentials, "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true"}

    def start(self) -> None:
        with (self.folder / "s3.log").open("ab") as log:
            command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, env=os.environ | self.environment, start_new_session=True
            )
        deadline = time.monotonic() + PATIENCE
        assert _answers(self._ready, self.process, deadline), (self.folder / "s3.log").read_text()

    def bucket(self) -> str:
        """The name of a new bucket."""
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
        with contextlib.suppress(OSError):  # refused, or no answer for so long
            urllib.request.urlopen(f"http://{self.endpoint}/moto-api/", timeout=10).close()
            return True
        return False


def _answers(ready: Callable[[], bool], process: subprocess.Popen[bytes], deadline: float) -> bool:
    """Whether a server came up before it ended or time ran out."""
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
    if found := shutil.which("initdb"):
        return Path(found).parent
    folders: Sequence[Path] = sorted(Path("/").glob(_BINARIES.lstrip("/")))
    if not folders:
        raise MissingError("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    return folders[-1]


def _unprivileged() -> str:
    import pwd

    names = {entry.pw_name for entry in pwd.getpwall()}
    for name in ("postgres", "nobody"):
        if name in names:
            return name
    raise MissingError("PostgreSQL does not run as root, and there is neither a user postgres nor nobody")

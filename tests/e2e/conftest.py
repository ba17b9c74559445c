"""A sweep without interruptions that several tests share, and a lab for each other sweep. All listen on loopback."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from e2e_lab import JOB, Lab, Unbroken, dashboard_of, flags, python_through_uv, study_of, trainings_of


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    made = Lab(tmp_path)
    yield made
    made.close()


@pytest.fixture(scope="session")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Unbroken]:
    """A study of three trials, started as a newcomer does and watched while it runs."""
    lab = Lab(tmp_path_factory.mktemp("unbroken"))
    home = lab.path / "home"
    try:
        run = lab.start([*python_through_uv(), JOB, "--home", str(home), "--trials", "3", *flags()])

        def scrape() -> list[str]:
            lines = lab.prometheus()
            counted = any(line.startswith("ray_coldtune_trials{") for line in lines)
            return lines if counted and trainings_of(lines) else []

        prometheus = run.until("a training in Prometheus", scrape)
        dashboard = dashboard_of(run.text)

        def ask() -> dict[str, Any]:
            with contextlib.suppress(
                OSError, LookupError, TypeError
            ):  # a busy dashboard answers with errors or in part
                return {"jobs": lab.get(dashboard, "/api/jobs/"), "actors": lab.actors(dashboard)}
            return {}

        seen = {
            "prometheus": prometheus,
            **run.until("the dashboard's lists", ask),
            "early_logs": lab.trial_logs(),
        }
        listening: dict[str, set[str]] = {}
        torch: dict[bool, set[str]] = {True: set(), False: set()}  # the libraries of workers (True) and of others
        for process in lab.processes():
            with contextlib.suppress(psutil.NoSuchProcess):  # it may have ended in the meantime
                sockets = [c for c in process.net_connections("tcp") if c.status == "LISTEN"]
                maps = {m.path for m in process.memory_maps() if Path(m.path).name.startswith("libtorch_cpu")}
                torch[" ".join(process.cmdline()).startswith("ray::")] |= maps
                listening[f"{process.name()} {process.pid}"] = {socket.laddr.ip for socket in sockets}
        code = run.wait()
        yield Unbroken(
            home=home,
            code=code,
            text=run.text,
            study=study_of(home),
            listening=listening,
            drivers_torch=torch[False],
            workers_torch=torch[True],
            logs=lab.trial_logs(),
            **seen,
        )
    finally:
        lab.close()

"""optuna-dashboard opens a study and shows its objectives by name."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import servers
from coldtune.studies.space.space import Space
from coldtune.studies.spec.build import build_spec
from coldtune.studies.storage.backends import dashboard_command, open_storage
from coldtune.studies.storage.outcome import TrialOutcome
from coldtune.studies.trials.ledger import open_ledger

pytest.importorskip("optuna_dashboard")

SPACE = """
base: digits-quick
vary:
  degradation.sigma.rate: {low: 0.01, high: 0.1, log: true}
  sampler.algorithm: {choices: [direct, tacos]}
objective: [{metric: fid}, {metric: nfe}]
"""


@contextmanager
def dashboard(command: str, password: str) -> Iterator[str]:
    """Run the dashboard command that coldtune prints, and return the address of the dashboard."""
    words = shlex.split(command.partition("optuna-dashboard ")[2])
    port = servers.free_port()
    start = [sys.executable, "-c", "from optuna_dashboard._cli import main; main()", *words, "--port", str(port)]
    process = subprocess.Popen(
        start,
        env={**os.environ, "PYTHONWARNINGS": "ignore", "PGPASSWORD": password},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.communicate(timeout=60)


def get(address: str) -> Any:
    deadline = time.monotonic() + servers.PATIENCE
    while True:
        try:
            with urllib.request.urlopen(address, timeout=60) as answer:
                return json.load(answer)
        except OSError:
            assert time.monotonic() < deadline, f"{address} does not answer"
            time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["journal", "postgres"])
def test_dashboard_shows_objectives_by_name(request: pytest.FixtureRequest, tmp_path: Path, kind: str) -> None:
    url = password = None
    if kind == "postgres":
        server = request.getfixturevalue("postgres")
        url, password = server.database(), server.password
    (tmp_path / "space.yaml").write_text(SPACE)
    spec = build_spec("two", tmp_path / "space.yaml")
    made = open_ledger(spec.name, spec, Space(spec.space, spec.base, (1, 16, 16)), open_storage(tmp_path, url))
    for number in range(2):
        made.complete(made.ask().number, TrialOutcome({"fid": 2.0 - number, "nfe": 5.0 * (1 + number)}))
    made.fail(made.ask().number, "RuntimeError: boom")
    command = dashboard_command(tmp_path, url)
    assert password is None or password not in command
    with dashboard(command, password or "") as address:
        (listed,) = get(f"{address}/api/studies")["study_summaries"]
        assert listed["study_name"] == spec.name
        shown = get(f"{address}/api/studies/{listed['study_id']}")
    assert shown["objective_names"] == ["FID", "NFE"]
    assert shown["directions"] == ["minimize", "minimize"]
    assert [trial["state"] for trial in shown["trials"]] == ["Complete", "Complete", "Fail"]
    assert [trial.get("values") for trial in shown["trials"][:2]] == [[2.0, 5.0], [1.0, 10.0]]
    assert {param["name"] for param in shown["trials"][0]["params"]} == {"rate", "sampler"}
    reason = {attr["key"]: attr["value"] for attr in shown["trials"][2]["user_attrs"]}["reason"]
    assert "boom" in reason

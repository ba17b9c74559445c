"""Tests with a real tracking server: outages, replays, and errors of `prepare`."""

from __future__ import annotations

import base64
import http.server
import json
import os
import re
import secrets
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
import zlib
from collections.abc import Iterator
from pathlib import Path

import mlflow.server
import pytest
from mlflow.tracking import MlflowClient
from PIL import Image

import servers
from coldtune.addresses import redact
from coldtune.tracking import (
    Drainer,
    Target,
    Tracker,
    TrialsPage,
    charts_page,
    default_uri,
    drain,
    pending,
    prepare,
    run_page,
    ui_command,
)
from coldtune.tracking.drain import Drained
from coldtune.tracking.server import ui_port


class Server:
    """An MLflow server on a loopback port, which a test may stop and start."""

    def __init__(self, home: Path) -> None:
        self.port = servers.free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.home = home
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, database: str = "mlflow.db") -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        command = f"{sys.executable} -m mlflow server --host 127.0.0.1 --port {self.port} --workers 1"
        stores = ["--backend-store-uri", f"sqlite:///{self.home / database}"]
        stores += ["--artifacts-destination", str(self.home / "artifacts")]
        environment = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        with (self.home / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*shlex.split(command), *stores],
                env=os.environ | environment, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + servers.PATIENCE
        while time.monotonic() < deadline:
            try:
                urllib.request.urlopen(f"{self.uri}/health", timeout=5).close()
            except OSError:
                assert self.process.poll() is None, (self.home / "server.log").read_text()
                time.sleep(0.1)
            else:
                return
        raise AssertionError((self.home / "server.log").read_text())

    def stop(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")  # on a busy machine, its first answers take seconds
        server.start()
        yield server
    server.stop()


def drained(spool: Path, target: Target) -> Drained:
    """Drain again and again until no drainer in the background is delivering a spool. Return the last result."""
    deadline = time.monotonic() + servers.PATIENCE
    while (result := drain(spool, target)).busy:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return result


def losses(target: Target, study: str) -> list[tuple[int, float]]:
    """Return all losses of trial 0 of a study."""
    client = MlflowClient(target.uri)
    (run,) = client.search_runs(
        [target.experiment_id], f"tags.`coldtune.study` = '{study}' and tags.coldtune.trial = '0'"
    )
    rows = client.get_metric_history(run.info.run_id, "loss")
    return [(row.step, row.value) for row in sorted(rows, key=lambda row: (row.timestamp, row.step))]


@pytest.mark.e2e
@pytest.mark.timeout(1800)
def test_drainer_outage_loses_and_doubles_nothing(
    server: Server, study: str, spool_dir: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    target = prepare(server.uri, "coldtune", tmp_path / "unused")
    parent = Tracker(spool_dir, study)
    drainer = Drainer(spool_dir, target, interval=0.1)
    trial = Tracker(spool_dir, study, 0)
    for step in range(100):
        trial.metrics({"loss": float(step)}, step)
    assert drainer.flush(300)

    server.stop()
    for step in range(100, 200):
        trial.metrics({"loss": float(step)}, step)
    (tmp_path / "config.yaml").write_text("a: 1")
    trial.artifact(tmp_path / "config.yaml", "setup")
    trial.end("finished")
    result = drained(spool_dir, target)  # as `coldtune tracking sync` does, while the server is still away
    assert result.error is not None
    assert result.pending == pending(spool_dir, target) > 0
    assert not drainer.flush(0)

    server.start()
    assert drainer.flush(300)
    parent.end("finished")
    assert drainer.close(300)
    assert losses(target, study) == [(step, float(step)) for step in range(200)]
    client = MlflowClient(target.uri)
    both = client.search_runs([target.experiment_id], f"tags.`coldtune.study` = '{study}'")
    study_run, trial_run = sorted(both, key=lambda run: run.data.tags["coldtune.kind"])  # start times may be equal
    assert {trial_run.info.status, study_run.info.status} == {"FINISHED"}
    assert trial_run.info.artifact_uri.startswith("mlflow-artifacts:")
    assert [file.path for file in client.list_artifacts(trial_run.info.run_id, "setup")] == ["setup/config.yaml"]
    assert "View run" not in capfd.readouterr().out


@pytest.mark.slow
@pytest.mark.e2e
@pytest.mark.timeout(1800)
def test_drain_replaced_database_receives_the_whole_history(
    server: Server, study: str, spool_dir: Path, tmp_path: Path
) -> None:
    target = prepare(server.uri, "coldtune", tmp_path / "unused")
    Tracker(spool_dir, study)
    with Tracker(spool_dir, study, 0, target=target) as trial:
        trial.metrics({"loss": 0.0}, 0)
        assert trial.flush(300)
        server.stop()
        for step in range(1, 50):
            trial.metrics({"loss": float(step)}, step)
        trial.end("finished")
    assert pending(spool_dir, target) > 0
    # The server comes back with an empty database, so the whole history must be sent again.
    server.start("other.db")
    again = prepare(server.uri, "coldtune", tmp_path / "unused")
    assert (again.uri, again.experiment_id) == (target.uri, target.experiment_id)
    result = drained(spool_dir, again)
    assert (result.pending, result.error) == (0, None)
    assert losses(target, study) == [(step, float(step)) for step in range(50)]
    client = MlflowClient(target.uri)
    clauses = f"tags.`coldtune.study` = '{study}' and tags.`coldtune.kind` = 'study'"
    assert len(client.search_runs([target.experiment_id], clauses)) == 1


@pytest.mark.slow
@pytest.mark.e2e
@pytest.mark.timeout(1800)
def test_drain_replaced_database_receives_runs_that_had_ended(
    server: Server, study: str, spool_dir: Path, tmp_path: Path
) -> None:
    target = prepare(server.uri, "coldtune", tmp_path / "unused")
    for trial in (None, 0, 1):
        with Tracker(spool_dir, study, trial) as tracker:
            tracker.metrics({"loss": 1.0}, 0)
            tracker.end("finished")
    assert drained(spool_dir, target).pending == 0
    server.stop()
    server.start("third.db")
    again = prepare(server.uri, "coldtune", tmp_path / "unused")
    assert (again.uri, again.experiment_id) == (target.uri, target.experiment_id)
    assert pending(spool_dir, again) > 0
    assert drained(spool_dir, again).pending == 0
    found = MlflowClient(target.uri).search_runs([target.experiment_id], f"tags.`coldtune.study` = '{study}'")
    assert sorted(run.data.tags.get("coldtune.trial", "-") for run in found) == ["-", "0", "1"]


def test_prepare_unreachable_server_is_an_error(tmp_path: Path) -> None:
    with servers.refusing_port() as port:
        message = rf"127.0.0.1:{port}': the server cannot be reached \(connection refused\)"
        with pytest.raises(ValueError, match=message):
            prepare(f"http://user:secret@127.0.0.1:{port}", "coldtune", tmp_path)


def test_prepare_silent_server_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coldtune.tracking.uris.TIMEOUT", 1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(ValueError, match=r"the server cannot be reached \(no answer within"):
            prepare(f"http://127.0.0.1:{port}", "coldtune", tmp_path)


class _Silent(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_error(404)

    def log_message(self, *_: object) -> None:
        pass


def test_prepare_foreign_server_is_an_error(tmp_path: Path) -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Silent) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        try:
            with pytest.raises(ValueError, match="answers, but not as an MLflow server"):
                prepare(f"http://127.0.0.1:{other.server_port}", "coldtune", tmp_path)
        finally:
            other.shutdown()


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("mlruns", "unknown kind .*allowed: http"),
        ("file:///tmp/mlruns", "unknown kind .*allowed: http"),
        ("sqlite://", "names no file; allowed: sqlite:///PATH"),
        ("sqlite:////dev/null/mlflow.db", "cannot be written"),
        ("postgresql://me:secret@127.0.0.1:1/runs", "'postgresql://127.0.0.1:1/runs': the database cannot be reached"),
        ("http://127.0.0.1:99999", "[Pp]ort .*allowed: http"),
        ("http://[::1", "allowed: http"),
    ],
)
def test_prepare_unusable_uri_says_what_is_allowed(tmp_path: Path, uri: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        prepare(uri, "coldtune", tmp_path)
    assert str(caught.value).startswith("tracking URI = ")
    assert "secret" not in str(caught.value)


def test_prepare_file_without_database_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("these are my notes, not a database\n" * 100)
    with pytest.raises(ValueError, match="file is not a database"):
        prepare(default_uri(tmp_path), "coldtune", tmp_path)


def test_prepare_deleted_experiment_says_how_to_restore_it(target: Target, tmp_path: Path) -> None:
    doomed = prepare(target.uri, "doomed", tmp_path)
    MlflowClient(target.uri).delete_experiment(doomed.experiment_id)
    with pytest.raises(ValueError, match=f"restore --experiment-id {doomed.experiment_id}"):
        prepare(target.uri, "doomed", tmp_path)


def test_prepare_twice_finds_the_experiment_with_absolute_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    first = prepare("sqlite:///mlflow.db", "coldtune", Path("artifacts"))
    assert first.uri == f"sqlite:///{tmp_path}/mlflow.db" == default_uri(Path())
    monkeypatch.chdir("/")
    assert prepare(first.uri, "coldtune", tmp_path) == first
    location = MlflowClient(first.uri).get_experiment(first.experiment_id).artifact_location
    assert location == (tmp_path / "artifacts").as_uri()


def test_redact_removes_user_names_and_passwords() -> None:
    assert redact("postgresql://me:pa55@db:5432/runs") == "postgresql://db:5432/runs"
    assert (
        redact("no route to http://me:pa55@host:1/x or http://h/a@b") == "no route to http://host:1/x or http://h/a@b"
    )
    assert ui_command("https://me:pa55@host") == "https://host"


def test_ui_command_is_quoted_for_the_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV", "uv")
    words = shlex.split(ui_command(default_uri(tmp_path / "my runs")))
    assert words[:4] == ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false", "uv", "run", "mlflow"]
    assert words[words.index("--backend-store-uri") + 1] == f"sqlite:///{tmp_path}/my runs/mlflow.db"


def test_ui_command_of_a_used_port_names_a_free_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as used:
        monkeypatch.setattr("coldtune.tracking.server._PORT", used.getsockname()[1])
        words = shlex.split(ui_command(default_uri(tmp_path)))
        free = int(words[words.index("--port") + 1])
        assert free == ui_port() > used.getsockname()[1]
    assert "--port" not in ui_command(default_uri(tmp_path))


def saved(page: TrialsPage, target: Target) -> str:
    return page.address(target, view=page.save(target))


def test_trials_page_view_finds_and_sorts_the_trials(target: Target, study: str, spool_dir: Path) -> None:
    Tracker(spool_dir, study)
    for number, fid in enumerate((3.0, 1.0, 2.0)):
        Tracker(spool_dir, study, number).metrics({"fid": fid})
    drain(spool_dir, target)
    page, _, query = saved(TrialsPage(study, ["T"], ["fid", "nfe"]), target).partition("?")
    assert page == f"http://127.0.0.1:{ui_port()}/#/experiments/{target.experiment_id}/runs"
    client = MlflowClient(target.uri)
    tags = client.get_experiment(target.experiment_id).tags
    view = json.loads(tags["mlflow.sharedViewState." + dict(urllib.parse.parse_qsl(query))["viewStateShareKey"]])
    assert view["selectedColumns"] == ["params.`T`", "metrics.`fid`", "metrics.`nfe`"]
    check_filter(client, target, view["searchFilter"], view["orderByKey"])


def test_trials_page_charts_begin_with_the_objective(target: Target, study: str) -> None:
    page = TrialsPage(study, ["T", "rate", "sampler"], ["sampled/ssim"], minimize=False, partial=["rate"])
    page = saved(page, target)
    (view,) = urllib.parse.parse_qs(page.partition("?")[2])["viewStateShareKey"]
    text = MlflowClient(target.uri).get_experiment(target.experiment_id).tags[f"mlflow.sharedViewState.{view}"]
    state = json.loads(text)
    bars, parallel, *pictures = state["compareRunCharts"]
    assert (bars["type"], bars["metricKey"]) == ("BAR", "sampled/ssim")
    assert (parallel["selectedParams"], parallel["selectedMetrics"]) == (["T", "sampler"], ["sampled/ssim"])
    assert "params.`rate`" in state["selectedColumns"], (
        "the chart would leave out the trials that lack it, the list does not"
    )
    first = state["compareRunSections"][0]["uuid"]
    assert {bars["metricSectionId"], parallel["metricSectionId"]} == {first}
    shown = [picture["imageKeys"] for picture in pictures if not picture["deleted"]]
    assert shown == [["samples/sampled", "samples/path"]]
    assert charts_page(page) == f"{page}&compareRunsMode=CHART"


def test_trials_page_of_groups_closes_the_pictures(target: Target, study: str) -> None:
    """MLflow shows no pictures of a group of runs, so an open section would say that there are none."""
    closed = {}
    for group in (None, "setting"):
        page = saved(TrialsPage(f"{study}-{group}", ["T"], ["sampled/fid"], group_by=group), target)
        (view,) = urllib.parse.parse_qs(page.partition("?")[2])["viewStateShareKey"]
        text = MlflowClient(target.uri).get_experiment(target.experiment_id).tags[f"mlflow.sharedViewState.{view}"]
        state = json.loads(text)
        closed[group] = [each["name"] for each in state["compareRunSections"] if not each["display"]]
    assert closed == {None: [], "setting": ["samples"]}


def test_trials_page_long_view_is_compressed_as_mlflow_does(target: Target, study: str) -> None:
    columns = [f"parameter_{i}" for i in range(200)]
    page = saved(TrialsPage(study, columns), target)
    (view,) = urllib.parse.parse_qs(page.partition("?")[2])["viewStateShareKey"]
    text = MlflowClient(target.uri).get_experiment(target.experiment_id).tags[f"mlflow.sharedViewState.{view}"]
    head, _, rest = text.partition(";")
    assert (head, len(text) < 5000) == ("deflate", True)
    state = json.loads(zlib.decompress(base64.b64decode(rest)))
    assert state["selectedColumns"][:-1] == [f"params.`{name}`" for name in columns]


def test_run_page_opens_the_training_view(target: Target) -> None:
    page = run_page(target, "0123")
    assert page.endswith(f"/#/experiments/{target.experiment_id}/runs/0123?workflowType=machine_learning")


def test_drain_dataset_and_images_are_those_that_mlflow_would_log(
    target: Target, study: str, spool_dir: Path, tmp_path: Path
) -> None:
    Image.new("RGB", (300, 100), (255, 0, 0)).save(tmp_path / "red.png")
    with Tracker(spool_dir, study), Tracker(spool_dir, study, 0) as trial:
        trial.image(tmp_path / "red.png", "samples/own", 40)
        trial.dataset("digits", "ab" * 32, "training", tmp_path, {"images": 1000})
    assert drain(spool_dir, target).error is None
    trial_state = spool_dir / "trial-0000.state"
    trial_state.unlink()  # everything is sent again
    assert drain(spool_dir, target).error is None
    client = MlflowClient(target.uri)
    run_id = json.loads(trial_state.read_text())["run_id"]
    own = client.create_run(target.experiment_id).info.run_id
    client.log_image(own, Image.open(tmp_path / "red.png"), key="samples/own", step=40)

    def pictures(run_id: str) -> set[tuple[str, str]]:
        names = [file.path for file in client.list_artifacts(run_id, "images")]
        return {(re.sub(r"timestamp[+]\d+[+][-0-9a-f]+", "", name), Path(name).suffix) for name in names}

    assert pictures(run_id) == pictures(own)
    assert len(client.list_artifacts(run_id, "images")) == 2
    run, mlflows = client.get_run(run_id), client.get_run(own)
    assert run.data.tags["mlflow.loggedImages"] == mlflows.data.tags["mlflow.loggedImages"]
    (linked,) = run.inputs.dataset_inputs
    assert (linked.dataset.name, linked.dataset.digest) == ("digits", "ab" * 18)
    assert [(tag.key, tag.value) for tag in linked.tags] == [("mlflow.data.context", "training")]
    assert mlflow.data.get_source(linked.dataset).load() == str(tmp_path)
    client.delete_run(own)


def test_trials_page_tag_of_the_view_is_known_to_mlflows_pages() -> None:
    """The tag is not documented. If MLflow's pages no longer contain it, `_save_view` can go."""
    pages = Path(mlflow.server.__file__).parent / "js" / "build" / "static" / "js"
    (main,) = pages.glob("main.*.js")
    script = main.read_text()
    assert '"mlflow.sharedViewState."' in script
    assert '"viewStateShareKey"' in script


def test_trials_page_without_view_has_filter_and_order(target: Target, study: str, spool_dir: Path) -> None:
    Tracker(spool_dir, study)
    for number, fid in enumerate((3.0, 1.0, 2.0)):
        Tracker(spool_dir, study, number).metrics({"fid": fid})
    drain(spool_dir, target)
    too_many = [secrets.token_hex(10) for _ in range(500)]  # for the length of a tag, compressed or not
    query = dict(urllib.parse.parse_qsl(saved(TrialsPage(study, too_many), target).partition("?")[2]))
    assert query["orderByAsc"] == "true"
    check_filter(MlflowClient(target.uri), target, query["searchFilter"], query["orderByKey"])


def check_filter(client: MlflowClient, target: Target, wanted: str, order: str) -> None:
    matches = client.search_runs([target.experiment_id], wanted, order_by=[f"{order} ASC"])
    assert [run.data.tags["coldtune.trial"] for run in matches] == ["1", "2", "0"]

"""Commands that list things: JSON for programs, and tables in which nothing is cut."""

from __future__ import annotations

import argparse
import io
import json
import math
import re
import shutil
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from coldtune import cli, presets
from coldtune.cli.job import parser
from coldtune.cli.json_output import to_json
from coldtune.cli.tables import ListTable
from coldtune.config import plain
from coldtune.data import Dataset, prepared
from coldtune.diffusion import build_degradation
from coldtune.stages.trial import parse_trial
from coldtune.studies.drivers.election import driver_lease
from coldtune.studies.drivers.registry import FolderRegistry
from coldtune.studies.space.space import Space
from coldtune.studies.spec.build import build_spec
from coldtune.studies.spec.folder import StudyFolder
from coldtune.studies.storage.backends import open_storage
from coldtune.studies.storage.outcome import TrialOutcome
from coldtune.studies.storage.record import write_study
from coldtune.studies.trials.ledger import open_ledger
from finished_study import QUICK, Finished

Command = Callable[..., tuple[int, str, str]]
LONG = "Q" * 70  # a letter that no other text of the tables has
LISTINGS = [
    "study list",
    f"study show {LONG}",
    f"importance {LONG}",
    "store ls",
    "store gc --older 0",
    "data list",
    "data verify digits",
]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run `coldtune`. Return its exit code, its output and its errors."""

    def call(line: str, home: Path | None = None, width: int = 160) -> tuple[int, str, str]:
        monkeypatch.setenv("COLUMNS", str(width))
        with pytest.raises(SystemExit) as ended:
            cli.main([*line.split(), *(["--home", str(home)] if home else [])])
        return (int(ended.value.code or 0), *capsys.readouterr())

    return call


@pytest.fixture(scope="module")
def home(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the finished study, beside a study of replicates with a long name and long names of variants."""
    home = tmp_path_factory.mktemp("listings") / "home"
    shutil.copytree(finished.home, home)
    dataset = Dataset.open(prepared(home, "digits")[0])
    variants = {"V" * 45: {}, "W" * 45: {"training.lr": 2e-3}}
    (home / "space.yaml").write_text(yaml.safe_dump({"base": "digits-quick", "variants": variants}))
    spec = build_spec("long", home / "space.yaml", settings=QUICK)
    folder = StudyFolder(home, LONG)
    folder.save(spec, {"trials": 2, "replicates": 2, "fingerprint": dataset.fingerprint, "command": "python long.py"})
    space = Space(spec.space, spec.base, dataset.image_shape)
    ledger = open_ledger(LONG, spec, space, open_storage(folder.path), replicates=2)
    write_study(ledger.study, trials=2, replicates=[2])
    protocol = plain(finished.outcomes[0].protocol)
    for fid in (1.0, 5.0, 2.0, 7.0):
        asked = ledger.ask(2)
        assert asked is not None
        ledger.complete(asked.number, TrialOutcome({"fid": fid, "fid_low": fid - 0.1, "fid_high": fid + 0.1}, protocol))
    return home


def answer(result: tuple[int, str, str]) -> Any:
    code, out, error = result
    assert (code, error) == (0, "")
    return json.loads(out)


def test_study_run_has_every_flag_of_a_job() -> None:
    def flags(made: argparse.ArgumentParser) -> set[tuple[str, ...]]:
        return {tuple(action.option_strings) for action in made._actions if action.option_strings}

    (commands,) = (action for action in cli.build_parser()._actions if isinstance(action.choices, dict))
    (verbs,) = (action for action in commands.choices["study"]._actions if isinstance(action.choices, dict))
    of_job = flags(parser("", 12))
    assert {("--dataset",), ("--set",), ("--trials",), ("--replicates",), ("--confirm",), ("--study",)} <= of_job
    assert flags(verbs.choices["run"]) == of_job


def test_json_of_every_listing_is_one_document_on_stdout(home: Path, command: Command) -> None:
    for line in (*LISTINGS, "store verify"):
        assert answer(command(f"{line} --json", home))
    first, *_ = answer(command("store ls --json", home))
    entry = answer(command(f"store show {first['kind']}/{first['key']} --json", home))
    assert {key: entry[key] for key in first} == first
    assert sum(file["bytes"] for file in entry["files"].values()) <= first["bytes"]


def test_docs_describe_the_json_of_every_command() -> None:
    def with_json(made: argparse.ArgumentParser, words: str = "") -> Iterator[str]:
        for action in made._actions:
            if "--json" in action.option_strings:
                yield words
            if isinstance(action.choices, dict):
                for name, parser in action.choices.items():
                    yield from with_json(parser, f"{words} {name}".strip())

    documented = (Path(__file__).parents[2] / "docs" / "studies.md").read_text()
    found = list(with_json(cli.build_parser()))
    assert {"study list", "data judges", "importance", "evaluate"} <= set(found)
    assert [name for name in found if f"\n| `{name}" not in documented] == []


def test_json_has_no_nan_and_no_local_time() -> None:
    east = datetime.fromisoformat("2026-03-01T12:00:00.5+02:00")
    made = to_json({"a": [math.nan, -math.inf, 0.1 + 0.2], 2: Path("/x"), "time": east, "yes": True, "none": None})
    assert made == {"a": [None, None, 0.1 + 0.2], "2": "/x", "time": "2026-03-01T10:00:00+00:00", "yes": True,
                    "none": None}  # fmt: skip


def test_study_list_json_has_states_interval_and_times(home: Path, finished: Finished, command: Command) -> None:
    found = {study["name"]: study for study in answer(command("study list --json", home))}
    single, several = found[finished.study], found[LONG]
    assert single["states"] == {"finished": 2, "pruned": 0, "failed": 1, "interrupted": 1, "running": 0}
    assert (single["trials"], single["ended"], single["varies"]) == (4, 3, ["sampler.num_steps"])
    best = min((0, 1), key=lambda number: finished.outcomes[number].metrics["fid"])
    metrics = finished.outcomes[best].metrics
    numbers = (metrics["fid"], metrics["fid_low"], metrics["fid_high"])
    assert single["best"]["trial"] == best
    assert tuple(single["best"][key] for key in ("value", "low", "high")) == numbers
    for key in ("started", "changed"):
        assert abs(datetime.now(UTC) - datetime.fromisoformat(single[key])) < timedelta(hours=1)
    assert several["variants"] == ["V" * 45, "W" * 45]
    assert (several["best"]["setting"], several["best"]["value"], several["best"]["trainings"]) == (0, 1.5, 2)
    # Student's t of one degree of freedom: 12.706 standard errors, which are 0.5
    assert several["best"]["high"] - 1.5 == pytest.approx(12.7062 / 2, rel=1e-4)


def test_study_list_shows_states_what_varies_and_the_interval(home: Path, finished: Finished, command: Command) -> None:
    code, out, _ = command("study list", home, width=400)
    (row,) = [line for line in out.splitlines() if finished.study in line]
    assert code == 0
    assert "2 finished, 1 failed, 1 interrupted" in row
    assert " num_steps " in row
    best = min((outcome.metrics for outcome in finished.outcomes), key=lambda metrics: metrics["fid"])
    said = re.search(r"FID ([0-9.]+) \[([0-9.]+), ([0-9.]+)\] \(trial ", row)
    assert said is not None
    assert [float(each) for each in said.groups()] == pytest.approx(
        [best["fid"], best["fid_low"], best["fid_high"]], abs=0.05 * (best["fid_high"] - best["fid_low"])
    )
    assert f"{datetime.now():%Y-}" in row


def test_study_list_ranks_no_values_of_several_protocols(
    home: Path, finished: Finished, tmp_path: Path, command: Command
) -> None:
    shutil.copytree(home / "data", tmp_path / "data")
    spec = StudyFolder(home, finished.study).spec()
    folder = StudyFolder(tmp_path, "mixed")
    folder.save(spec, {"trials": 4, "fingerprint": finished.dataset.fingerprint, "command": "python mixed.py"})
    space = Space(spec.space, spec.base, finished.dataset.image_shape)
    ledger = open_ledger("mixed", spec, space, open_storage(folder.path))
    protocol = plain(finished.outcomes[0].protocol)
    for fid, change in ((2.0, {}), (1.0, {"reference": "same"}), (0.1, {"extractor_sha256": "f" * 64})):
        asked = ledger.ask()
        assert asked is not None
        ledger.complete(asked.number, TrialOutcome({"fid": fid}, {**protocol, **change}))
        (found,) = answer(command("study list --json", tmp_path))
        assert (found["best"] or {}).get("value") == (fid if "extractor_sha256" not in change else None)


def test_study_list_json_names_a_study_that_cannot_be_read(home: Path, tmp_path: Path, command: Command) -> None:
    shutil.copytree(home / "studies", tmp_path / "studies")
    shutil.copytree(home / "data", tmp_path / "data")
    (tmp_path / "studies" / LONG / "start.json").write_text("")
    code, out, error = command("study list --json", tmp_path)
    assert (code, error.count("\n")) == (1, 1)
    broken, whole = json.loads(out)
    assert (broken["name"], set(broken)) == (LONG, {"name", "error"})
    assert "start.json" in broken["error"]
    assert whole["ended"] == 3


def test_study_show_json_has_the_trials_and_settings(home: Path, finished: Finished, command: Command) -> None:
    record = answer(command(f"study show {finished.study} --json", home))
    assert [trial["state"] for trial in record["trials_asked"]] == ["finished", "finished", "failed", "interrupted"]
    assert record["trials_asked"][0]["metrics"] == finished.outcomes[0].metrics
    assert record["trials_asked"][1]["params"] == {"num_steps": 2}
    assert record["trials_asked"][2]["reason"] == "RuntimeError: boom"
    assert record["protocol"]["key"] == finished.outcomes[0].protocol.key
    (first, second) = answer(command(f"study show {LONG} --json", home))["settings"]
    assert first["metrics"]["fid"] == {"mean": 1.5, "sd": pytest.approx(0.5**0.5), "trainings": 2}
    assert second["metrics"]["fid"]["mean"] == 6.0


def test_study_show_prints_the_addresses_again(home: Path, finished: Finished, command: Command) -> None:
    _, out, _ = command(f"study show {finished.study}", home)
    lines = {line[2:17].strip(): line[17:] for line in out.splitlines() if line.startswith("  ")}
    assert f"--backend-store-uri sqlite:///{home}/mlflow.db" in lines["runs in MLflow"]
    assert lines["in Optuna"].endswith(f"{home}/studies/{finished.study}/journal.log")
    assert "Ray dashboard" not in lines
    assert "its trials" not in lines  # its start.json is that of an older version


def test_study_show_prints_mlflows_pages_of_a_study_with_an_experiment(
    home: Path, finished: Finished, command: Command, tmp_path: Path
) -> None:
    folder = tmp_path / "studies" / finished.study
    for name in ("data", f"studies/{finished.study}"):
        shutil.copytree(home / name, tmp_path / name)
    start = json.loads((folder / "start.json").read_text())
    for view, part in ((True, "viewStateShareKey="), (False, "searchFilter=")):
        experiment = {"id": "7", "born": 0, "view": view}
        (folder / "start.json").write_text(json.dumps({**start, "home": str(tmp_path), "experiment": experiment}))
        _, out, _ = command(f"study show {finished.study}", tmp_path)
        lines = {line[2:17].strip(): line[17:] for line in out.splitlines() if line.startswith("  ")}
        assert "/#/experiments/7/runs?" in lines["its trials"]
        assert part in lines["its trials"]
        assert lines["its charts"] == f"{lines['its trials']}&compareRunsMode=CHART"
        assert not (tmp_path / "mlflow.db").exists()


def test_study_show_names_the_dashboard_that_answers(home: Path, finished: Finished, command: Command) -> None:
    registry = FolderRegistry(home / "studies" / finished.study / "drivers")
    with socket.create_server(("127.0.0.1", 0)) as server, driver_lease(registry, finished.study, False) as lease:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        lease.announce(address)
        assert f"  Ray dashboard  http://{address}" in command(f"study show {finished.study}", home)[1]
        server.close()
        assert "Ray dashboard" not in command(f"study show {finished.study}", home)[1]


@pytest.mark.parametrize("width", [60, 80])
def test_listing_in_a_narrow_terminal_cuts_nothing(width: int, home: Path, command: Command) -> None:
    for line in LISTINGS:
        code, out, _ = command(line, home, width)
        table = [row for row in out.splitlines() if str(home) not in row and "journal.log" not in row]
        assert code == 0
        assert "…" not in out
        if line.split()[0] == "study" or line == "store ls":  # other lines are for copying, and are not wrapped
            assert max(map(len, table)) <= width
    assert command("study list", home, width)[1].count("Q") >= len(LONG)
    shown = command(f"study show {LONG}", home, width)[1]
    assert min(shown.count("V"), shown.count("W")) >= 45
    assert command("presets", None, width)[1].count("…") == 0


@pytest.mark.parametrize("width", [30, 40, 60, 80, 100, 160])
def test_list_table_keeps_words_whole_and_repeats_the_names(width: int) -> None:
    table = ListTable("title", ("name", "shape"), ("size",), ("varies", "run by"), edge=width % 20 == 0)
    words = [f"judge.{number:012x}" for number in range(3)]
    for word in words:
        table.add_row(word, "3x16x16", "100.0%", "schedule, rate, sampler, num_steps", "process 4711 on node-a")
    table.rows.append([])
    table.add_row("total", "", "300.0%", "", "")
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(table, highlight=False)
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= width
    found = Counter(re.findall(r"[^ \n,]+", "\n".join(lines)))
    parts = found["name"]
    assert [found[word] for word in words] == [parts] * 3
    assert (found["title"], found["total"], found["300.0%"], found["3x16x16"]) == (1, parts, 1, 3)
    assert (found["num_steps"], found["sampler"], found["node-a"], found["4711"]) == (3, 3, 3, 3)
    assert (parts == 1) == (width >= 80)


def test_list_table_with_names_as_long_as_a_line_loses_no_letter() -> None:
    table = ListTable("", ("kind", "key"), ("size",), names=2)
    table.add_row("K" * 50, "Q" * 50, "1 kB")
    console = Console(width=40, record=True, file=io.StringIO())
    console.print(table, highlight=False)
    text = console.export_text()
    assert (text.count("K"), text.count("Q")) == (50, 50)
    assert max(map(len, text.splitlines())) <= 40


@pytest.mark.parametrize("name", ["digits-quick", "paper/celeba-mask", "quick/digits-noise", "quick/mnist-animorph"])
def test_presets_name_prints_a_base_that_means_the_same(name: str, tmp_path: Path, command: Command) -> None:
    code, out, error = command(f"presets {name}")
    assert (code, error) == (0, "")
    printed, written = yaml.safe_load(out), presets.load(name)
    (tmp_path / "space.yaml").write_text(
        yaml.safe_dump({"base": printed, "vary": {"training.lr": {"low": 1e-4, "high": 1e-3}}})
    )
    config, expected = parse_trial(build_spec("own", tmp_path / "space.yaml").base), parse_trial(written)
    assert config.model_copy(update={"degradation": None}) == expected.model_copy(update={"degradation": None})
    shape = presets.image_shape(written)
    assert (
        build_degradation(config.degradation, shape).config == build_degradation(written["degradation"], shape).config
    )
    assert answer(command(f"presets {name} --json")) == printed


def test_presets_json_lists_every_preset(command: Command) -> None:
    assert [preset["name"] for preset in answer(command("presets --json"))] == presets.names()

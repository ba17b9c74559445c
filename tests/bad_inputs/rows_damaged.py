"""More files that coldtune wrote and reads again: zero bytes, other types, depth, other studies, newer versions."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from bad_row import Place, Row, command, fifo, flag, link, on_study
from rows_read_back import JOURNAL, SPEC, START, put, remove

STUDY_JOURNAL = "{home}/studies/{study}/journal.log"
RESTORE = "Restore"


def change_text(name: str, before: str, after: str) -> Callable[[Place], None]:
    """Return a function that replaces a text in a file of the study's folder, which must contain it."""

    def change(place: Place) -> None:
        path = place.folder / name
        text = path.read_text(encoding="utf-8")
        assert before.replace("STUDY", place.study) in text
        path.write_text(text.replace(before.replace("STUDY", place.study), after), encoding="utf-8")

    return change


def start_with(**values: Any) -> Callable[[Place], None]:
    """Return a function that changes values of start.json."""

    def change(place: Place) -> None:
        path = place.folder / "start.json"
        path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **values}), encoding="utf-8")

    return change


def add_line(line: bytes) -> Callable[[Place], None]:
    """Return a function that adds a line to the journal."""

    def change(place: Place) -> None:
        with (place.folder / JOURNAL).open("ab") as file:
            file.write(line + b"\n")

    return change


def first_line(line: bytes) -> Callable[[Place], None]:
    """Return a function that replaces the first line of the journal."""

    def change(place: Place) -> None:
        path = place.folder / JOURNAL
        path.write_bytes(line + b"\n" + path.read_bytes().partition(b"\n")[2])

    return change


DEEP = "[" * 100_000
ROWS: list[Row] = [
    # --- spec.yaml
    on_study("spec-missing-show", remove("spec.yaml"), "study show {study}", [SPEC, "no such file", RESTORE]),
    on_study("spec-missing-report", remove("spec.yaml"), "report {study} -o {dir}/r.html", [SPEC, "no such file"]),
    on_study("spec-missing-importance", remove("spec.yaml"), "importance {study}", [SPEC, "no such file", RESTORE]),
    on_study("spec-zeros-show", put("spec.yaml", bytes(300)), "study show {study}", [SPEC, "zero bytes", RESTORE]),
    on_study("spec-latin-show", put("spec.yaml", b"job: gr\xf6\xdfe\n"), "study show {study}", [SPEC, "UTF-8"]),
    on_study("spec-pipe-show", put("spec.yaml", fifo), "study show {study}", [SPEC, "not a regular file"]),
    on_study("spec-endless-show", put("spec.yaml", link("/dev/zero")), "study show {study}",
             [SPEC, "not a regular file"]),
    on_study("spec-newer-show", lambda place: add_key(place), "study show {study}", [SPEC, "future"]),
    on_study("spec-no-degradation-show", change_text("spec.yaml", "  degradation:", "  degraded:"),
             "study show {study}", [SPEC, "degradation"]),
    on_study("spec-no-degradation-evaluate", change_text("spec.yaml", "  degradation:", "  degraded:"),
             "evaluate {study}", [SPEC, "degradation"]),
    on_study("spec-edited-show", change_text("spec.yaml", "batch_size: 16", "batch_size: 32"), "study show {study}",
             [SPEC, "base.training.batch_size: 32, there 16", RESTORE]),
    on_study("spec-edited-resume", change_text("spec.yaml", "batch_size: 16", "batch_size: 32"),
             "study resume {study}", [SPEC, "base.training.batch_size: 32, there 16", RESTORE]),
    # --- start.json
    on_study("start-missing-show", remove("start.json"), "study show {study}", [START, "no such file", RESTORE]),
    on_study("start-zeros-show", put("start.json", bytes(300)), "study show {study}", [START, "zero bytes"]),
    on_study("start-deep-show", put("start.json", DEEP), "study show {study}", [START, "nested too deeply"]),
    on_study("start-pipe-show", put("start.json", fifo), "study show {study}", [START, "not a regular file"]),
    on_study("start-endless-show", put("start.json", link("/dev/zero")), "study show {study}",
             [START, "not a regular file"]),
    on_study("start-digits-show", put("start.json", '{"trials": ' + "9" * 5000 + "}"), "study show {study}", START),
    on_study("start-cut-evaluate", put("start.json", '{"trials": 4, "finger'), "evaluate {study}",
             [START, "not complete JSON", "line 1"]),
    on_study("start-cut-promote", put("start.json", '{"trials": 4, "finger'), "study promote {study} 0", START),
    on_study("start-storage-number-show", start_with(storage=5), "study show {study}", [START, "storage = 5"]),
    on_study("start-storage-number-resume", start_with(storage=5), "study resume {study}", [START, "storage = 5"]),
    on_study("start-storage-elsewhere-show", start_with(storage="sqlite:////no/such/place.db"), "study show {study}",
             "sqlite:////no/such/place.db"),
    on_study("start-trials-text-show", start_with(trials="many"), "study show {study}", [START, "trials = 'many'"]),
    on_study("start-trials-zero-show", start_with(trials=0), "study show {study}", [START, "trials = 0"]),
    on_study("start-workers-text-resume", start_with(workers="x", command="c"), "study resume {study}",
             [START, "workers = 'x'"]),
    on_study("start-limits-newer-resume", start_with(limits={"foo": 1}, command="c"), "study resume {study}",
             [START, "limits.foo", "newer version"]),
    on_study("start-limits-text-resume", start_with(limits={"retries": "x"}, command="c"), "study resume {study}",
             [START, "retries = 'x'"]),
    on_study("start-limits-list-resume", start_with(limits=[1], command="c"), "study resume {study}",
             [START, "limits"]),
    # --- the journal
    on_study("journal-missing-resume", remove(JOURNAL), "study resume {study}", STUDY_JOURNAL),
    on_study("journal-zeros-show", put(JOURNAL, bytes(4096)), "study show {study}", [STUDY_JOURNAL, "holds no study"]),
    on_study("journal-of-another-show", change_text(JOURNAL, '"STUDY"', '"another"'), "study show {study}",
             [STUDY_JOURNAL, "holds no study {study}", "another study"]),
    on_study("journal-pipe-show", put(JOURNAL, fifo), "study show {study}", [STUDY_JOURNAL, "not a regular file"]),
    on_study("journal-null-line-show", add_line(b"null"), "study show {study}", [STUDY_JOURNAL, "line ", "head -n"]),
    on_study("journal-opcode-show", add_line(b'{"op_code":99,"worker_id":"x"}'), "study show {study}",
             [STUDY_JOURNAL, "line ", "head -n"]),
    on_study("journal-cut-line-show", add_line(b'{"op_code":6,'), "study show {study}", [STUDY_JOURNAL, "line "]),
    on_study("journal-deep-line-show", add_line(DEEP.encode()), "study show {study}", [STUDY_JOURNAL, "line "]),
    on_study("journal-zero-line-show", first_line(bytes(60)), "study show {study}",
             [STUDY_JOURNAL, "line 1", "zero bytes"]),
    on_study("journal-nan-show", add_line(b'{"op_code":6,"worker_id":"x","trial_id":3,"state":1,"values":[NaN]}'),
             "study show {study}", [STUDY_JOURNAL, "finite"]),
    on_study("journal-record-show", add_line(b'{"op_code":8,"worker_id":"x","trial_id":3,"user_attr":{"metrics":5}}'),
             "study show {study}", "the record of trial 3"),
    # --- places
    command("list-home-is-file", "study list --home {dir}/file", says=["--home {dir}/file", "a folder must be there"],
            files={"file": ""}),
    command("list-home-long", "study list --home {dir}/{long}", says=["too long"]),
    flag("home-below-file", "--home={dir}/file/home", says=["--home", "{dir}/file is a file"], files={"file": ""}),
    command("list-home-of-nobody", "study list", says=["COLDTUNE_HOME", "~nobody-of-this-name"],
            env={"COLDTUNE_HOME": "~nobody-of-this-name/x"}),
    flag("data-is-file", "--home={dir}/home", says=["--home", "{dir}/home/data is a file"], files={"home/data": ""}),
    command("data-prepare-home-is-file", "data prepare digits --home {dir}/file", says=["--home {dir}/file"],
            files={"file": ""}),
    command("evaluate-output-full", "evaluate {study} --output /dev/full", says="--output /dev/full", home="study"),
    command("evaluate-output-long", "evaluate {study} --output {dir}/{long}", says=["--output", "too long"],
            home="study"),
    command("store-missing", "store ls --store {dir}/nowhere", says=["--store {dir}/nowhere", "no such folder"],
            home="empty"),
    command("store-below-file", "store ls --store {dir}/file/store", says=["{dir}/file is a file"], home="empty",
            files={"file": ""}),
]  # fmt: skip


def add_key(place: Place) -> None:
    """Add a key of a version to come to the spec."""
    with (place.folder / "spec.yaml").open("a", encoding="utf-8") as file:
        file.write("future: 5\n")

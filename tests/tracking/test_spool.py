"""Tests of the journal and delivery state on disk, with writers that are killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from coldtune.tracking.spool import Spool, State, sizes

HOLDER = """
import sys, time
from pathlib import Path
from coldtune.tracking.spool import Spool
with Spool(Path(sys.argv[1]), "study").lock() as locked:
    print(locked, flush=True)
    time.sleep(600)
"""


def ops(spool: Spool, offset: int = 0) -> list[str]:
    return [record["op"] for record, _ in spool.read(offset)[0]]


def test_spool_reads_records_in_order_from_any_offset(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "study")
    for i in range(10):
        spool.append({"op": f"op{i}"})
    records, behind = spool.read()
    assert [record["op"] for record, _ in records] == [f"op{i}" for i in range(10)]
    assert behind == spool.size() == records[-1][1]
    for i, (_, offset) in enumerate(records):
        assert ops(spool, offset) == [f"op{j}" for j in range(i + 1, 10)]


def test_spool_read_continues_after_the_limit(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "study")
    for i in range(7):
        spool.append({"op": str(i)})
    first, offset = spool.read(0, limit=3)
    assert [record["op"] for record, _ in first] == ["0", "1", "2"]
    assert ops(spool, offset) == ["3", "4", "5", "6"]


def test_spool_unfinished_line_is_read_when_it_is_complete(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "study")
    spool.append({"op": "whole"})
    with spool.path.open("ab") as file:
        file.write(b'{"op": "ha')
    assert ops(spool) == ["whole"]
    with spool.path.open("ab") as file:
        file.write(b'lf"}\n')
    assert ops(spool) == ["whole", "half"]


def test_spool_torn_line_is_skipped(tmp_path: Path) -> None:
    Spool(tmp_path, "study").append({"op": "before"})
    with (tmp_path / "study.jsonl").open("ab") as file:
        file.write(b'{"op": "metrics", "val')
    spool = Spool(tmp_path, "study")
    spool.append({"op": "after"})
    spool.append({"op": "later"})
    assert ops(spool) == ["before", "after", "later"]


def test_spool_state_is_saved_for_a_target(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "study")
    spool.append({"op": "create"})
    state = State(target="here", run_id="abc", offset=spool.size())
    spool.save(state)
    assert Spool(tmp_path, "study").state("here") == state
    assert spool.state("elsewhere") == State(target="elsewhere")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"unknown": 1}', "\0\0"])
def test_spool_damaged_state_starts_again(tmp_path: Path, content: str) -> None:
    spool = Spool(tmp_path, "study")
    spool.append({"op": "create"})
    spool.state_path.write_text(content)
    assert spool.state("here") == State(target="here")


def test_spool_state_beyond_the_journal_starts_again(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "study")
    spool.append({"op": "create"})
    spool.save(State(target="here", run_id="abc", offset=spool.size() + 1))
    assert spool.state("here") == State(target="here")


def test_spool_lock_is_exclusive_and_released_by_a_kill(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "study")
    spool.append({"op": "create"})
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "True\n"
        with spool.lock() as locked:
            assert not locked
        spool.append({"op": "end"})  # appending needs no lock
    finally:
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
        holder.stdout.close()
    with spool.lock(wait=30) as locked:
        assert locked
        with Spool(tmp_path, "study").lock() as locked_twice:
            assert not locked_twice  # the lock also excludes other users in this process
    assert ops(spool) == ["create", "end"]


def test_spool_lock_without_journal_is_refused(tmp_path: Path) -> None:
    with Spool(tmp_path, "study").lock() as locked:
        assert not locked


def test_spool_files_are_copied_and_removed(tmp_path: Path) -> None:
    source = tmp_path / "grid.png"
    spool = Spool(tmp_path / "spool", "trial-0000")
    copies = []
    for content in ("first", "second"):
        source.write_text(content)
        copies.append(spool.add_file(source))
    assert [(spool.directory / path).read_text() for path in copies] == ["first", "second"]
    assert {Path(path).name for path in copies} == {"grid.png"}
    for path in copies:
        spool.remove_file(path)
    assert list(spool.directory.iterdir()) == []


def test_sizes_lists_the_study_last(tmp_path: Path) -> None:
    for name in ("trial-0010", "trial-0002", "study"):
        Spool(tmp_path, name).append({"op": "create"})
    Spool(tmp_path, "study").reject({"op": "params"}, "why")
    journals = sizes(tmp_path)
    assert list(journals) == ["trial-0002", "trial-0010", "study"]
    assert journals["study"] == Spool(tmp_path, "study").size() > 0
    assert sizes(tmp_path / "missing") == {}


def test_spool_rejected_record_is_kept_with_the_reason(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "study")
    spool.reject({"op": "params", "values": {"lr": "1"}}, "changed")
    assert json.loads(spool.rejected_path.read_text()) == {
        "reason": "changed",
        "record": {"op": "params", "values": {"lr": "1"}},
    }


@pytest.mark.parametrize(
    ("ops", "status"),
    [
        ([], None),
        ([("create", None)], "running"),
        ([("create", None), ("end", "interrupted")], "interrupted"),
        ([("create", None), ("end", "interrupted"), ("resume", None)], "running"),
        ([("create", None), ("end", "finished"), *[("metrics", None)] * 3], "finished"),
        ([("create", None), *[("metrics", None)] * 3000], "running"),
        ([("create", None), ("end", "failed"), *[("metrics", None)] * 3000], "failed"),
    ],
)
def test_spool_status_follows_from_the_journal(tmp_path: Path, ops: list[tuple[str, str]], status: str | None) -> None:
    spool = Spool(tmp_path, "trial-0000")
    for op, word in ops:
        spool.append({"op": op, "values": {"end": 1.0}, **({"status": word} if word else {})})
    if ops:
        spool.close()
        with spool.path.open("ab") as file:
            file.write(b'{"op":"end","status":"fini')  # a torn line does not count
    assert spool.status() == status


def test_spool_mend_ends_a_torn_line_once(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "study")
    assert not spool.mend()
    spool.append({"op": "create"})
    assert not spool.mend()
    with spool.path.open("ab") as file:
        file.write(b'{"op":"end"')
    assert spool.mend()
    assert not spool.mend()
    assert ops(spool) == ["create"]
    assert spool.read()[1] == spool.size()


@pytest.mark.parametrize(
    "content", ['{"offset": "x"}', '{"target": "here", "offset": -5}', '{"target": ["here"]}', "null", "[" * 100_000]
)
def test_spool_state_of_wrong_types_starts_again(tmp_path: Path, content: str) -> None:
    spool = Spool(tmp_path, "study")
    spool.append({"op": "create"})
    spool.state_path.write_text(content)
    assert spool.state("here") == State(target="here")


def test_spool_state_of_a_replaced_database_starts_again(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "study")
    spool.append({"op": "create"})
    delivered = State(target="here", run_id="abc", offset=spool.size(), born=5)
    spool.save(delivered)
    assert spool.state("here", born=5) == delivered
    assert spool.state("here") == delivered
    assert spool.state("here", born=6) == State(target="here", born=6)


def test_spool_state_of_an_older_version_belongs_to_an_older_database_only(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "study")
    spool.append({"op": "create"})
    spool.state_path.write_text('{"target": "here", "run_id": "abc", "offset": 5, "attempts": 0}')
    written = spool.state_path.stat().st_mtime_ns // 1_000_000
    assert spool.state("here", born=written - 1000).run_id == "abc"
    assert spool.state("here", born=written + 1000) == State(target="here", born=written + 1000)


def test_spool_zero_bytes_before_a_record_are_skipped(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "study")
    spool.append({"op": "before"})
    with spool.path.open("ab") as file:
        file.write(bytes(300) + b'{"op":"after"}\n' + bytes(50) + b"\nnull\n[1]\n{}\n" + b"[" * 100_000 + b"\n")
    spool.append({"op": "later"})
    assert ops(spool) == ["before", "after", "later"]
    assert spool.status() is None

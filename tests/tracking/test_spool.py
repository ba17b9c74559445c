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
with Spool(Path(sys.argv[1]), "study").lock() as held:
    print(held, flush=True)
    time.sleep(600)
"""


def ops(spool: Spool, offset: int = 0) -> list[str]:
    return [record["op"] for record, _ in spool.read(offset)[0]]


def test_records_come_back_in_order_and_from_any_offset(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "study")
    for i in range(10):
        spool.append({"op": f"op{i}"})
    records, behind = spool.read()
    assert [record["op"] for record, _ in records] == [f"op{i}" for i in range(10)]
    assert behind == spool.size() == records[-1][1]
    for i, (_, offset) in enumerate(records):
        assert ops(spool, offset) == [f"op{j}" for j in range(i + 1, 10)]


def test_reading_stops_at_the_limit_and_goes_on_from_there(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "study")
    for i in range(7):
        spool.append({"op": str(i)})
    first, offset = spool.read(0, limit=3)
    assert [record["op"] for record, _ in first] == ["0", "1", "2"]
    assert ops(spool, offset) == ["3", "4", "5", "6"]


def test_a_line_still_being_written_waits(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "study")
    spool.append({"op": "whole"})
    with spool.path.open("ab") as file:
        file.write(b'{"op": "ha')
    assert ops(spool) == ["whole"]
    with spool.path.open("ab") as file:
        file.write(b'lf"}\n')
    assert ops(spool) == ["whole", "half"]


def test_a_line_torn_by_a_crash_costs_only_itself(tmp_path: Path) -> None:
    Spool(tmp_path, "study").append({"op": "before"})
    with (tmp_path / "study.jsonl").open("ab") as file:
        file.write(b'{"op": "metrics", "val')
    spool = Spool(tmp_path, "study")
    spool.append({"op": "after"})
    spool.append({"op": "later"})
    assert ops(spool) == ["before", "after", "later"]


def test_the_state_survives_and_belongs_to_one_target(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "study")
    spool.append({"op": "create"})
    state = State(target="here", run_id="abc", offset=spool.size())
    spool.save(state)
    assert Spool(tmp_path, "study").state("here") == state
    assert spool.state("elsewhere") == State(target="elsewhere")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"unknown": 1}', "\0\0"])
def test_a_ruined_state_means_starting_again(tmp_path: Path, content: str) -> None:
    spool = Spool(tmp_path, "study")
    spool.append({"op": "create"})
    spool.state_path.write_text(content)
    assert spool.state("here") == State(target="here")


def test_a_state_beyond_the_journal_means_starting_again(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "study")
    spool.append({"op": "create"})
    spool.save(State(target="here", run_id="abc", offset=spool.size() + 1))
    assert spool.state("here") == State(target="here")


def test_only_one_holds_the_lock_and_a_killed_holder_gives_it_up(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "study")
    spool.append({"op": "create"})
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "True\n"
        with spool.lock() as held:
            assert not held
        spool.append({"op": "end"})  # appending goes on
    finally:
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
        holder.stdout.close()
    with spool.lock(wait=30) as held:
        assert held
        with Spool(tmp_path, "study").lock() as again:
            assert not again  # nor twice within a process
    assert ops(spool) == ["create", "end"]


def test_there_is_nothing_to_lock_without_a_journal(tmp_path: Path) -> None:
    with Spool(tmp_path, "study").lock() as held:
        assert not held


def test_kept_files_are_copies_under_their_own_name_until_discarded(tmp_path: Path) -> None:
    source = tmp_path / "grid.png"
    spool = Spool(tmp_path / "spool", "trial-0000")
    kept = []
    for content in ("first", "second"):
        source.write_text(content)
        kept.append(spool.keep(source))
    assert [(spool.directory / path).read_text() for path in kept] == ["first", "second"]
    assert {Path(path).name for path in kept} == {"grid.png"}
    for path in kept:
        spool.discard(path)
    assert list(spool.directory.iterdir()) == []


def test_the_study_is_delivered_after_its_trials(tmp_path: Path) -> None:
    for name in ("trial-0010", "trial-0002", "study"):
        Spool(tmp_path, name).append({"op": "create"})
    Spool(tmp_path, "study").reject({"op": "params"}, "why")
    found = sizes(tmp_path)
    assert list(found) == ["trial-0002", "trial-0010", "study"]
    assert found["study"] == Spool(tmp_path, "study").size() > 0
    assert sizes(tmp_path / "missing") == {}


def test_refused_records_are_kept_with_the_reason(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "study")
    spool.reject({"op": "params", "values": {"lr": "1"}}, "changed")
    assert json.loads(spool.rejected_path.read_text()) == {
        "reason": "changed",
        "record": {"op": "params", "values": {"lr": "1"}},
    }

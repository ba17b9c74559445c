"""The checkpoints of a training in a store."""

from __future__ import annotations

import pickle
import time

import pytest
from store_places import Bucket, Place

from coldtune.store.checkpoints import StoreCheckpoints


def checkpoint(text: str):
    return lambda directory: (directory / "weights").write_text(text) and None


def test_checkpoints_of_longer_training_keep_final_and_newest_two(place: Place) -> None:
    short = StoreCheckpoints(place.at, "key", final=30)
    for step in (10, 20, 30):
        short.save(step, checkpoint(str(step)))
    long = StoreCheckpoints(place.at, "key", final=60)
    step, path = long.latest(60)
    assert (step, (path / "weights").read_text()) == (30, "30")
    assert place.store().files.address(path) == f"{place.at.shown}/train/key/00000030"
    assert long.latest(29)[0] == 20
    assert StoreCheckpoints(place.at, "another", final=60).latest(60) is None
    for step in (40, 45, 50, 55, 60):
        long.save(step, checkpoint(str(step)))
    kept = sorted({int(name.split("/")[0]) for name in place.names("train/key")})
    assert kept == [30, 50, 55, 60], "both final steps, and the newest two of the others"


def test_checkpoints_with_a_recorded_user_stay(place: Place) -> None:
    long = StoreCheckpoints(place.at, "key", final=60)
    long.save(10, checkpoint("10"))
    place.store().record_use("train/key/00000010", "another/3")
    for step in (20, 30, 40, 50, 60):
        long.save(step, checkpoint(str(step)))
    assert [long.has(step) for step in (10, 20, 30, 40, 50, 60)] == [True, False, False, True, True, True]


def test_checkpoints_latest_skips_a_torn_checkpoint(place: Place) -> None:
    checkpoints = StoreCheckpoints(place.at, "key", final=30)
    checkpoints.save(10, checkpoint("10"))
    checkpoints.save(20, checkpoint("20"))
    place.next_moment()
    place.write("train/key/00000020/weights", b"?!")
    with pytest.warns(UserWarning, match="is damaged"):
        assert checkpoints.latest(30)[0] == 10


def test_checkpoints_seconds_add_up_over_runs(place: Place) -> None:
    first = StoreCheckpoints(place.at, "key", final=20)
    time.sleep(0.05)
    first.save(10, checkpoint("10"))
    spent = first.seconds(10)
    assert spent >= 0.05
    second = StoreCheckpoints(place.at, "key", final=20)
    second.latest(20)
    second.save(20, checkpoint("20"))
    assert second.seconds(20) >= spent


def test_checkpoints_survive_pickling(bucket: Bucket) -> None:
    checkpoints = StoreCheckpoints(bucket.at, "key", final=10)
    checkpoints.save(10, checkpoint("x"))
    there = pickle.loads(pickle.dumps(checkpoints))
    assert there.latest(10)[0] == 10
    assert there.has(10)

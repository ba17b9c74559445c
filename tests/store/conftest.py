"""Fixtures that run a test on a local store and on a store in object storage."""

from __future__ import annotations

from pathlib import Path

import pytest
from store_places import Bucket, Place

from coldtune.store.location import StoreLocation
from coldtune.store.store import Store


@pytest.fixture
def bucket(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    s3 = request.getfixturevalue("s3")
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("COLDTUNE_STORE_CACHE", str(tmp_path / "copies"))
    return Bucket(StoreLocation.of(s3.url(s3.bucket())), tmp_path)


@pytest.fixture(params=["local", "object"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "object":
        made: Place = request.getfixturevalue("bucket")
        return made
    return Place(StoreLocation.of(tmp_path / "store"), tmp_path)


@pytest.fixture
def store(place: Place) -> Store:
    return place.store()


@pytest.fixture
def local_store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")

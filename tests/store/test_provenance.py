"""The record of the machine and the software beside results."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import coldtune
from coldtune.store import provenance


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A checkout of git with one commit, from which coldtune seems to run."""
    root = tmp_path / "checkout"
    package = root / "platform" / "coldtune"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("one = 1\n")
    author = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    for command in (["init", "-q"], ["add", "."], [*author, "commit", "-q", "-m", "first"]):
        subprocess.run(["git", "-C", str(root), *command], check=True)
    monkeypatch.setattr(coldtune, "__file__", str(package / "__init__.py"))
    caches = (provenance.git_commit, provenance._machine, provenance._software)
    for cached in caches:
        cached.cache_clear()
    yield root
    for cached in caches:
        cached.cache_clear()


def kept(folder: Path) -> tuple[dict, dict]:
    environment = provenance.keep_environment(folder)
    return environment, json.loads((folder / f"{environment['software']}.json").read_text())


def test_keep_environment_names_machine_threads_and_every_package(checkout: Path, tmp_path: Path) -> None:
    environment, software = kept(tmp_path / "environments")
    head = subprocess.run(["git", "-C", str(checkout), "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    assert environment["commit"] == software["commit"] == head.stdout.strip()
    assert environment["threads"] == torch.get_num_threads()
    assert environment["torch"] == torch.__version__
    assert software["python"] == sys.version
    assert software["packages"]["pytest"] == pytest.__version__
    assert "diff" not in software


def test_keep_environment_changed_checkout_keeps_its_diff(checkout: Path, tmp_path: Path) -> None:
    (checkout / "platform" / "coldtune" / "__init__.py").write_text("one = 2\n")
    (checkout / "new.py").write_text("")
    environment, software = kept(tmp_path / "environments")
    assert environment["commit"].endswith("-dirty")
    assert "-one = 1\n+one = 2" in software["diff"]
    assert list(software["untracked"]) == ["new.py"]


def test_keep_environment_equal_software_shares_a_file(tmp_path: Path) -> None:
    first, second = (provenance.keep_environment(tmp_path)["software"] for _ in range(2))
    assert [path.name for path in tmp_path.iterdir()] == [f"{first}.json"] == [f"{second}.json"]

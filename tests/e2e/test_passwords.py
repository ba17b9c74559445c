"""A study in a database with a password: no file and no output holds the password, and a moved home goes on."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest
from e2e_lab import Lab, flags
from mlflow.tracking import MlflowClient

import servers
from coldtune.tracking import default_uri

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(1800)]


def test_study_with_a_password_keeps_it_nowhere_and_follows_a_moved_home(lab: Lab, postgres: servers.Postgres) -> None:
    home, url = lab.path / "home", postgres.database()
    quick = flags(**{"training.steps": 20, "training.report_every": 20, "training.validate_every": 0})
    run = lab.sweep(home, "--study", "a (b); c", "--trials", "1", "--storage", url, *quick)
    assert run.wait() == 0, run.text
    lab.wait_until_empty()
    assert run.text.count("other users of this machine can read the password") == 1
    secret = postgres.password
    assert secret not in run.text
    assert not [path for path in home.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]
    logs = [path for path in lab.ray.rglob("*") if path.is_file() and not path.is_symlink()]
    assert not [path for path in logs if secret.encode() in path.read_bytes() and "driver" not in path.name]

    moved = lab.path / "moved home?"
    shutil.move(home, moved)

    def coldtune(*words: str, **env: str) -> tuple[int, str]:
        done = lab.start([sys.executable, "-m", "coldtune", *words, "--home", str(moved)], Path("/"), **env)
        return done.wait(), done.text

    code, text = coldtune("study", "resume", "a (b); c", "--trials", "2")
    assert code == 2, text
    assert "PGPASSWORD" in text
    assert len(text.strip().splitlines()) == 1
    code, text = coldtune("study", "resume", "a (b); c", "--trials", "2", PGPASSWORD=secret)
    assert code == 0, text
    lab.wait_until_empty()
    assert secret not in text
    printed = dict(re.findall(r"^  (\w[\w ]*\w) {2,}(\S.*)$", text, re.MULTILINE))
    for head in ("look closer", "more trials"):
        words = shlex.split(printed[head])
        assert "a (b); c" in words
        assert str(moved) in words

    code, text = coldtune("study", "show", "a (b); c", PGPASSWORD=secret)
    assert code == 0, text
    places = re.findall(r"its (?:images|restorer) +(\S.*)", text)
    assert [Path(place).is_dir() for place in places] == [True, True]
    assert all(place.startswith(f"{moved}/store/") for place in places)
    client = MlflowClient(default_uri(moved))
    [experiment] = client.search_experiments(filter_string="name = 'coldtune'")
    trials = client.search_runs([experiment.experiment_id], "tags.`coldtune.kind` = 'trial'")
    assert len(trials) == 2
    for trial in trials:
        assert "config.yaml" in [file.path for file in client.list_artifacts(trial.info.run_id)]

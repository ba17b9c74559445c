"""How a study shares a cluster out between its trials."""

from __future__ import annotations

from pathlib import Path

import pytest

from coldtune.studies import cluster
from coldtune.studies.cluster import Slots, plan


@pytest.mark.parametrize(
    ("resources", "workers", "gpus", "wanted", "slots"),
    [
        ({"CPU": 2}, 1, 0, 8, Slots(2, 1, 1, 0)),
        ({"CPU": 16}, 1, 0, 8, Slots(8, 1, 2, 0)),
        ({"CPU": 64}, 1, 0, 4, Slots(4, 1, 4, 0)),
        ({"CPU": 2}, 1, 0, 1, Slots(1, 1, 2, 0)),
        ({"CPU": 2}, 2, 0, 8, Slots(1, 2, 1, 0)),
        ({"CPU": 8}, 2, 0, 8, Slots(4, 2, 1, 0)),
        ({"CPU": 16, "GPU": 1}, 1, 0.25, 8, Slots(4, 1, 4, 0.25)),
        ({"CPU": 16, "GPU": 4}, 2, 2, 8, Slots(2, 2, 1, 1)),
        ({"CPU": 3, "GPU": 4}, 1, 1, 8, Slots(3, 1, 1, 1)),
    ],
)
def test_slots(resources, workers, gpus, wanted, slots) -> None:
    made = plan(resources, workers, gpus, wanted)
    assert made == slots
    assert made.count * made.workers * made.cpus <= resources["CPU"]
    assert made.count * made.workers * made.gpus <= resources.get("GPU", 0)


@pytest.mark.parametrize(
    ("resources", "workers", "gpus", "said"),
    [
        ({"CPU": 2}, 3, 0, r"3 CPUs \(--workers 3\); the cluster has 2 CPUs and 0 GPUs"),
        ({"CPU": 2}, 1, 0.5, r"0\.5 GPUs \(--gpus-per-trial 0\.5\); the cluster has 2 CPUs and 0 GPUs"),
        ({"CPU": 8, "GPU": 1}, 2, 2, r"2 GPUs"),
    ],
)
def test_a_trial_that_does_not_fit_is_refused(resources, workers, gpus, said) -> None:
    with pytest.raises(ValueError, match=said):
        plan(resources, workers, gpus, 8)


def test_the_home_outlives_rays_copy_of_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLDTUNE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    copy = tmp_path / "session" / "runtime_resources" / "working_dir_files" / "_ray_pkg_1"
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    assert cluster.default_home() == tmp_path / "me" / "coldtune-runs"
    monkeypatch.chdir(tmp_path)
    assert cluster.default_home() == tmp_path / "runs"
    monkeypatch.setenv("COLDTUNE_HOME", "elsewhere")
    assert cluster.default_home() == tmp_path / "elsewhere"

"""The artifacts of finished trials in their spools."""

from __future__ import annotations

from pathlib import Path

from coldtune.stages.chain import Chain
from coldtune.store.store import Store
from coldtune.studies.worker.artifacts import log_artifacts
from coldtune.tracking import Tracker
from coldtune.tracking.spool import Spool, run_file
from finished_study import Finished


def test_pictures_of_trainings_of_different_lengths_have_the_same_keys_and_steps(finished: Finished, tmp_path: Path):
    """MLflow's image grid shows a single step, and "No image logged at this step" for all other runs."""
    shown = []
    for number, steps in enumerate((4, 40)):
        trial = finished.configs[number]
        longer = trial.model_copy(update={"training": trial.training.model_copy(update={"steps": steps})})
        chain = Chain(trial, finished.dataset, Store(finished.home / "store"))
        tracker = Tracker(tmp_path, finished.study, number)
        log_artifacts(tracker, longer, chain, finished.outcomes[number], {})
        records = [record for record, _ in Spool(tmp_path, run_file(number)).read(0)[0]]
        files = [Path(record["path"]).name for record in records if record.get("folder") == "images"]
        # MLflow's own format of a name: the key, `+step+`, the step, and more.
        shown.append({tuple(name.split("+")[:3]) for name in files if name.endswith(".png")})
    assert shown[0] == shown[1]
    assert {key for key, _, _ in shown[0]} == {"samples~sampled", "samples~path"}

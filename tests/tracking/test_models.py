"""Logged models: sent once, registered on request, and loaded in another process."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mlflow.tracking import MlflowClient
from safetensors.torch import save_file

from coldtune import presets
from coldtune.diffusion import build_restorer
from coldtune.stages.mlflow_model import _load_pyfunc, write_model
from coldtune.stages.trial import TrialConfig, parse_trial
from coldtune.tracking import NOTE, Target, Tracker, default_uri, drain, prepare, register_model

SHAPE = (1, 16, 16)
LOAD = """
import sys
import mlflow
import numpy as np

model = mlflow.pyfunc.load_model(sys.argv[1])
x = np.load("x.npy")
np.save("whole.npy", model.predict(x))
np.save("early.npy", model.predict(x, params={"t": 2}))
"""


def config() -> TrialConfig:
    tree = presets.load("digits-quick")
    tree["degradation"]["steps"] = 4
    return parse_trial(tree)


def checkpoint(folder: Path) -> torch.nn.Module:
    """Write the weights of a random restorer as a checkpoint, and return the restorer."""
    network = build_restorer(config().restorer, SHAPE, steps=4).eval()
    folder.mkdir()
    save_file(network.state_dict(), folder / "ema.safetensors")
    return network


def test_model_predicts_as_its_restorer(tmp_path: Path) -> None:
    network = checkpoint(tmp_path / "checkpoint")
    write_model(tmp_path / "model", {300: tmp_path / "checkpoint"}, config(), SHAPE)
    loaded = _load_pyfunc(str(tmp_path / "model" / "data"))
    x = torch.rand(2, *SHAPE) * 2 - 1
    for t, params in ((4, None), (4, {}), (1, {"t": 1})):
        with torch.inference_mode():
            expected = network(x, torch.full((2,), t))
        np.testing.assert_array_equal(loaded.predict(x.numpy(), params), expected.numpy())
    with pytest.raises(ValueError, match="t = 5: allowed: 1 to 4"):
        loaded.predict(x.numpy(), {"t": 5})


def recorded(spool: Path, study: str, folder: Path, trial: int) -> None:
    with Tracker(spool, study), Tracker(spool, study, trial) as tracker:
        tracker.model(folder, "restorer")


def test_drain_model_sent_again_is_one_model(target: Target, study: str, spool_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "model" / "data").mkdir(parents=True)
    (tmp_path / "model" / "MLmodel").write_text("flavors: {}")
    (tmp_path / "model" / "data" / "about.json").write_text("{}")
    with pytest.raises(ValueError, match=f"{study}: has no logged model on "):
        register_model(target, study, spool_dir, "best")
    recorded(spool_dir, study, tmp_path / "model", 0)
    copies = tmp_path / "copies"
    shutil.copytree(spool_dir, copies)
    assert drain(spool_dir, target).error is None
    assert not list(spool_dir.glob("*.files")), "the copy is no longer needed"
    assert drain(copies, target).error is None  # as if the process died before it noted the delivery
    recorded(spool_dir, study, tmp_path / "model", 0)  # the study is resumed
    assert drain(spool_dir, target).error is None
    client = MlflowClient(target.uri)
    run_id = json.loads((spool_dir / "trial-0000.state").read_text())["run_id"]
    (model,) = client.search_logged_models([target.experiment_id], filter_string=f"source_run_id = '{run_id}'")
    assert (model.name, str(model.status)) == ("restorer", "READY")
    assert {file.path for file in client.list_logged_model_artifacts(model.model_id)} == {"MLmodel", "data"}
    assert [output.model_id for output in client.get_run(run_id).outputs.model_outputs] == [model.model_id]
    for _ in range(2):
        assert register_model(target, study, spool_dir, f"best of {study}") == "1"
    recorded(spool_dir, study, tmp_path / "model", 1)
    assert drain(spool_dir, target).error is None
    assert register_model(target, study, spool_dir, f"best of {study}") == "2", "a later best trial is a new version"


def test_drain_model_has_the_facts_of_its_run(target: Target, study: str, spool_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "MLmodel").write_text("flavors: {}")
    with Tracker(spool_dir, study), Tracker(spool_dir, study, 0) as tracker:
        tracker.params({"T": 20, "sampler": "tacos"})
        for context, split in (("training", "digits"), ("evaluation", "digits/validation")):
            tracker.dataset(split, "1d327d92ec75", context, tmp_path, {"images": 363})
        tracker.metrics({"train/loss": 0.5}, 10)
        tracker.metrics({"sampled/fid": 1.5, "sampled/nfe": 20.0})
        tracker.metrics({"seconds/total": 7.0})
        tracker.tags({NOTE: "**FID 1.50.**"})
        tracker.model(tmp_path / "model", "restorer")
        tracker.end("finished")
    assert drain(spool_dir, target).error is None
    client = MlflowClient(target.uri)
    run_id = json.loads((spool_dir / "trial-0000.state").read_text())["run_id"]
    (model,) = client.search_logged_models([target.experiment_id], filter_string=f"source_run_id = '{run_id}'")
    assert model.params == {"T": "20", "sampler": "tacos"}
    assert model.tags[NOTE] == "**FID 1.50.**"
    measured = {each.key: (each.value, each.dataset_name, each.dataset_digest) for each in model.metrics}
    where = ("digits/validation", "1d327d92ec75")
    assert measured == {"sampled/fid": (1.5, *where), "sampled/nfe": (20.0, *where)}
    assert [row.value for row in client.get_metric_history(run_id, "sampled/fid")] == [1.5], "once in the run"


@pytest.mark.slow
def test_registered_model_of_a_moved_home_loads_in_a_fresh_process(tmp_path: Path) -> None:
    network = checkpoint(tmp_path / "checkpoint")
    write_model(tmp_path / "model", {300: tmp_path / "checkpoint"}, config(), SHAPE)
    old, home = tmp_path / "old", tmp_path / "home"
    target = prepare(default_uri(old), "coldtune", old / "artifacts")
    recorded(old / "spool", "s", tmp_path / "model", 0)
    assert drain(old / "spool", target).error is None
    assert register_model(target, "s", old / "spool", "best") == "1"
    old.rename(home)
    target = prepare(default_uri(home), "coldtune", home / "artifacts")
    x = torch.rand(2, *SHAPE) * 2 - 1
    np.save(tmp_path / "x.npy", x.numpy())
    environment = os.environ | {"MLFLOW_TRACKING_URI": target.uri, "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}
    command = [sys.executable, "-c", LOAD, "models:/best/1"]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True)
    for name, t in (("whole", 4), ("early", 2)):
        with torch.inference_mode():
            expected = network(x, torch.full((2,), t))
        np.testing.assert_allclose(np.load(tmp_path / f"{name}.npy"), expected.numpy(), rtol=1e-5, atol=1e-6)

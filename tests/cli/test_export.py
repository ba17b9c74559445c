"""`coldtune export`: a network that diffusers loads in another process has the outputs of our restorer."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from coldtune import cli
from coldtune.diffusion import Restorer, build_degradation
from coldtune.diffusion.priors import build_prior
from coldtune.stages.chain import Chain
from coldtune.stages.evaluate import FinishedTrial
from coldtune.stages.export import export
from coldtune.stages.finished_restorer import find_restorer
from coldtune.stages.trial import TrialConfig, parse_trial
from coldtune.store.store import Store
from coldtune.training import load_restorer
from coldtune.training.loop import train
from coldtune.yaml_files import read_yaml
from finished_study import Finished

# Loads the first network before coldtune is imported, and then runs the examples of both model cards.
OTHER_PROCESS = """
import os, sys
from diffusers import UNet2DModel
from safetensors.torch import load_file, save_file

inputs = load_file("inputs.safetensors")
net = UNet2DModel.from_pretrained("restores").eval()
save_file({"out": net(inputs["x"], inputs["t"], return_dict=False)[0].detach().contiguous()}, "out.safetensors")
assert "coldtune" not in sys.modules
for name in ("restores", "generates"):
    os.chdir(name)
    scope = {}
    exec(open("../" + name + ".py").read(), scope)
    once = scope["restorer"](scope["x_T"], inputs["t"][:4]).detach().contiguous()
    save_file({"x_T": scope["x_T"], "images": scope["images"], "once": once}, "../" + name + ".safetensors")
    os.chdir("..")
"""


@dataclass(frozen=True)
class Exported:
    """Two exported restorers, and what another process computed with them.

    Attributes:
        said: The output of the command for the first.
        missing: Why the card of the second lists no values.
        generates: The second trial, with a prior, whose network is told t - 1.
    """

    folder: Path
    said: str
    missing: str
    generates: TrialConfig
    restorer: Restorer

    def card(self, name: str) -> str:
        return (self.folder / name / "README.md").read_text()

    def tensors(self, name: str) -> dict[str, Tensor]:
        return load_file(self.folder / f"{name}.safetensors")


@pytest.fixture(scope="module")
def exported(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    folder = tmp_path_factory.mktemp("exported")
    file = finished.config_file(folder / "trial", restorer={"index": "t-1"}, training={"steps": 2})
    config = parse_trial(read_yaml(file) | {"prior": {"kind": "gmm", "components": 1, "noise_scale": 0.01}})
    run, store = FinishedTrial("generates", config, finished.dataset), Store(folder / "store")
    Chain(config, finished.dataset, store).train(train, lambda *_: None)
    missing = export(run, store, folder / "generates")
    said = command(finished, folder / "restores")
    exported = Exported(folder, said, missing, config, _restorer(run, store))
    for name in ("restores", "generates"):
        (example,) = re.findall(r"```python\n(.*?)```", exported.card(name), flags=re.DOTALL)
        (folder / f"{name}.py").write_text(example)
    x = torch.rand(5, 1, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    save_file({"x": x, "t": torch.tensor([1, 2, 3, 4, 4])}, folder / "inputs.safetensors")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    script = [sys.executable, "-c", OTHER_PROCESS]
    done = subprocess.run(script, cwd=folder, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return exported


def command(finished: Finished, folder: Path) -> str:
    """Run the command, and return its output."""
    words = ["export", f"{finished.study}/0", str(folder), "--home", str(finished.home)]
    with redirect_stdout(io.StringIO()) as said, pytest.raises(SystemExit) as ended:
        cli.main(words)
    assert ended.value.code == 0
    return said.getvalue()


def _restorer(run: FinishedTrial, store: Store) -> Restorer:
    config = run.config
    network = load_restorer(find_restorer(run, store).path, config.restorer, (1, 16, 16), config.degradation["steps"])
    assert isinstance(network, Restorer)
    return network


def test_export_loaded_by_diffusers_in_another_process_equals_our_restorer(exported: Exported, finished: Finished):
    assert {path.name for path in (exported.folder / "restores").iterdir()} == {
        "README.md", "config.json", "config.yaml", "diffusion_pytorch_model.safetensors"
    }  # fmt: skip
    inputs = exported.tensors("inputs")
    run = FinishedTrial("x", finished.configs[0], finished.dataset)
    restorer = _restorer(run, Store(finished.home / "store"))
    assert torch.equal(exported.tensors("out")["out"], restorer(inputs["x"], inputs["t"]))
    config = json.loads((exported.folder / "restores" / "config.json").read_text())
    assert config["_class_name"] == "UNet2DModel"
    assert str(exported.folder / "restores" / "README.md") in exported.said


def test_export_card_names_training_protocol_values_and_index(exported: Exported, finished: Finished):
    card = exported.card("restores")
    assert "**The network is told t**" in card
    assert finished.outcomes[0].protocol.describe() in card
    for name, value in finished.outcomes[0].judgements["sampled"].values.items():
        if name in ("fid", "kid", "ssim"):
            assert f"| {name.upper()} | {value.value:.4g} |" in card
    assert "| batch_size | 16 |" in card
    assert "| sigma.schedule | exponential |" in card
    assert read_yaml(exported.folder / "restores" / "config.yaml")["training"]["steps"] == 4
    assert exported.tensors("restores")["images"].shape == (4, 1, 16, 16)


def test_export_card_tells_t_minus_1_and_starts_from_the_learned_prior(exported: Exported, finished: Finished):
    card, found = exported.card("generates"), exported.tensors("generates")
    assert "**The network is told t - 1**" in card
    assert exported.missing == "they are not in the store"
    assert "Not listed: they are not in the store." in card
    t = exported.tensors("inputs")["t"][:4]
    assert torch.equal(found["once"], exported.restorer(found["x_T"], t))
    assert not torch.equal(found["once"], exported.restorer(found["x_T"], t + 1))
    config = exported.generates
    assert config.prior is not None
    prior = build_prior(config.prior, build_degradation(config.degradation, (1, 16, 16)))
    state = prior.fit(finished.dataset.split("train").images, seed=config.protocol.seed)
    torch.testing.assert_close(found["x_T"], prior.start(torch.arange(4), state).x_T)


def test_export_failure_leaves_no_half_folder(finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run = FinishedTrial("x", finished.configs[0], finished.dataset)

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("coldtune.stages.export.model_card", fail)
    (tmp_path / "empty").mkdir()
    for name in ("new", "empty"):
        with pytest.raises(OSError, match="No space"):
            export(run, Store(finished.home / "store"), tmp_path / name)
    assert not (tmp_path / "new").exists()
    assert list((tmp_path / "empty").iterdir()) == []

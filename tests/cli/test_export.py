"""`coldtune export`: what diffusers loads in another process computes what the restorer computes here."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from coldtune import cli
from coldtune.diffusion import build_degradation
from coldtune.stages.chain import Chain
from coldtune.stages.evaluate import FinishedTrial
from coldtune.stages.export import export
from coldtune.stages.trial import parse_trial
from coldtune.store.store import Store
from coldtune.training import load_restorer
from coldtune.training.loop import train
from coldtune.yaml_files import read_yaml
from finished_study import Finished

OTHER_PROCESS = """
import sys
from diffusers import UNet2DModel
from safetensors.torch import load_file, save_file

inputs = load_file("inputs.safetensors")
net = UNet2DModel.from_pretrained("net").eval()
save_file({"out": net(inputs["x"], inputs["told"], return_dict=False)[0].detach().contiguous()}, "out.safetensors")
assert "coldtune" not in sys.modules
"""


def run_python(script: str, folder: Path) -> str:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def export_by_command(finished: Finished, folder: Path, capsys: pytest.CaptureFixture[str], *flags: str) -> str:
    with pytest.raises(SystemExit) as ended:
        cli.main(["export", f"{finished.study}/0", str(folder), "--home", str(finished.home), *flags])
    printed = capsys.readouterr()
    if ended.value.code:
        raise ValueError(printed.err.removeprefix("error: ").strip())
    return printed.out


def example_of(card: str) -> str:
    (script,) = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    return str(script)


def test_export_loaded_by_diffusers_in_another_process_equals_our_restorer(finished, tmp_path, capsys):
    said = export_by_command(finished, tmp_path / "net", capsys)
    assert {path.name for path in (tmp_path / "net").iterdir()} == {
        "README.md", "config.json", "config.yaml", "diffusion_pytorch_model.safetensors"
    }  # fmt: skip
    assert str(tmp_path / "net" / "README.md") in said
    x = torch.rand(5, 1, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    t = torch.tensor([1, 2, 3, 4, 4])
    save_file({"x": x, "told": t}, tmp_path / "inputs.safetensors")
    run_python(OTHER_PROCESS, tmp_path)
    config = finished.configs[0]
    restorer = load_restorer(finished.outcomes[0].checkpoint, config.restorer, (1, 16, 16), steps=4)
    assert torch.equal(load_file(tmp_path / "out.safetensors")["out"], restorer(x, t))
    assert json.loads((tmp_path / "net" / "config.json").read_text())["_class_name"] == "UNet2DModel"


def test_export_card_names_training_protocol_values_and_index(finished: Finished, tmp_path: Path, capsys):
    export_by_command(finished, tmp_path / "net", capsys)
    card = (tmp_path / "net" / "README.md").read_text()
    assert "**The network is told t**" in card
    assert finished.outcomes[0].protocol.describe() in card
    for name, value in finished.outcomes[0].judgements["sampled"].values.items():
        if name in ("fid", "kid", "ssim"):
            assert f"| {name.upper()} | {value.value:.4g} |" in card
    assert "| batch_size | 16 |" in card
    assert "| sigma.schedule | exponential |" in card
    assert read_yaml(tmp_path / "net" / "config.yaml")["training"]["steps"] == 4
    run_python(example_of(card) + "\nassert images.shape == (4, 1, 16, 16)", tmp_path / "net")


def test_export_index_t_minus_1_and_a_learned_prior_are_in_the_example(finished: Finished, tmp_path: Path):
    file = finished.config_file(tmp_path / "trial", restorer={"index": "t-1"}, training={"steps": 2})
    tree = read_yaml(file) | {"prior": {"kind": "gmm", "components": 1, "noise_scale": 0.01}}
    run, store = FinishedTrial("trial", parse_trial(tree), finished.dataset), Store(tmp_path / "store")
    Chain(run.config, finished.dataset, store).train(train, lambda *_: None)
    assert export(run, store, tmp_path / "net") == "they are not in the store"
    card = (tmp_path / "net" / "README.md").read_text()
    assert "**The network is told t - 1**" in card
    assert "Not listed: they are not in the store." in card
    script = example_of(card) + (
        "\nfrom safetensors.torch import save_file"
        "\nsave_file({'x_T': x_T, 'images': images, 'once': restorer(x_T, torch.full((4,), 4)).detach()}, '../out')"
    )
    run_python(script, tmp_path / "net")
    found = load_file(tmp_path / "out")
    chain = Chain(run.config, finished.dataset, store)
    restorer = load_restorer(
        next((tmp_path / "store" / "train").glob("*/*2")), run.config.restorer, (1, 16, 16), steps=4
    )
    assert torch.equal(found["once"], restorer(found["x_T"], torch.full((4,), 4)))
    d = build_degradation(run.config.degradation, (1, 16, 16))
    state = chain.prior.fit(finished.dataset.split("train").images, seed=run.config.protocol.seed)
    assert d.steps == 4
    torch.testing.assert_close(found["x_T"], chain.prior.start(torch.arange(4), state).x_T)


def test_export_full_folder_is_refused_and_stays(finished: Finished, tmp_path: Path, capsys):
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "mine").write_text("")
    with pytest.raises(ValueError, match=r"export .*net: must be a new or an empty folder"):
        export_by_command(finished, tmp_path / "net", capsys)
    assert [path.name for path in (tmp_path / "net").iterdir()] == ["mine"]


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

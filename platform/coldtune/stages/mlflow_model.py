"""A restorer as an MLflow model of safetensors, JSON and YAML: `mlflow.pyfunc.load_model` loads it without a pickle."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import yaml

from coldtune.config import plain
from coldtune.diffusion.restorer import RestorerConfig
from coldtune.stages.trial import TrialConfig
from coldtune.stages.weights import Weights
from coldtune.tensor_files import save_tensors
from coldtune.training.state import EMA, load_restorer

_DATA, _ABOUT = "data", "restorer.json"


def write_model(
    folder: Path, checkpoints: Mapping[int, Path], config: TrialConfig, image_shape: tuple[int, int, int]
) -> None:
    """Write the averaged weights with which a trial samples into an empty folder as an MLflow model.

    The model takes images x_t, float32 (B, C, H, W) in [-1, 1], and the parameter `t` (by default T). It returns the
    estimates of x_0, without guidance. Whoever loads it needs coldtune.

    Args:
        folder: The folder.
        checkpoints: The checkpoints that the trial's sampler needs, by step (`Weights.steps`).
        config: The trial.
        image_shape: (C, H, W).
    """
    data, steps = folder / _DATA, int(config.degradation["steps"])
    data.mkdir(parents=True)
    weights = Weights.of(config.training, config.sampler)
    if weights.ema_std is None:
        shutil.copyfile(checkpoints[weights.step] / EMA, data / EMA)
    else:
        load = partial(load_restorer, restorer=config.restorer, image_shape=image_shape, steps=steps)
        network = weights.network(checkpoints, load)
        save_tensors(network.state_dict(), data / EMA)
    about = {"restorer": plain(config.restorer), "image_shape": list(image_shape), "steps": steps}
    (data / _ABOUT).write_text(json.dumps(about), encoding="utf-8")
    (data / "config.yaml").write_text(yaml.safe_dump(plain(config), sort_keys=False), encoding="utf-8")
    images = [{"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, *image_shape]}}]
    signature = {
        "inputs": json.dumps(images),
        "outputs": json.dumps(images),
        "params": json.dumps([{"name": "t", "type": "long", "default": steps, "shape": None}]),
    }
    flavor = {"loader_module": __name__, "data": _DATA}
    model = {"flavors": {"python_function": flavor}, "signature": signature}
    (folder / "MLmodel").write_text(yaml.safe_dump(model), encoding="utf-8")


class RestorerModel:
    """The model that MLflow calls."""

    def __init__(self, network: torch.nn.Module, steps: int) -> None:
        self._network, self._steps = network, steps

    def predict(self, x_t: npt.NDArray[np.float32], params: Mapping[str, Any] | None = None) -> npt.NDArray[np.float32]:
        """Return R(x_t, t), the estimates of x_0, as float32 (B, C, H, W).

        Raises:
            ValueError: If t is not a severity of the degradation.
        """
        t = int((params or {}).get("t", self._steps))
        if not 1 <= t <= self._steps:
            raise ValueError(f"t = {t}: allowed: 1 to {self._steps}")
        images = torch.as_tensor(np.asarray(x_t, dtype=np.float32))
        with torch.inference_mode():
            estimates: npt.NDArray[np.float32] = self._network(images, torch.full((len(images),), t)).numpy()
        return estimates


def _load_pyfunc(folder: str) -> RestorerModel:
    """Load the model. MLflow finds this function by its name."""
    about = json.loads((Path(folder) / _ABOUT).read_text(encoding="utf-8"))
    channels, height, width = about["image_shape"]
    config = RestorerConfig.model_validate(about["restorer"])
    return RestorerModel(load_restorer(folder, config, (channels, height, width), about["steps"]), about["steps"])

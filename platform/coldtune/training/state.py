"""The state of a training between two steps, on the device and in a checkpoint."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from coldtune.diffusion import build_restorer, draws
from coldtune.diffusion.restorer import RestorerConfig
from coldtune.tensor_files import save_tensors
from coldtune.training.config import TrainingConfig
from coldtune.training.power_averages import TRACKS, Tracks
from coldtune.training.way import EAGER, Way

WEIGHTS, EMA, OPTIMIZER, STATE, HISTORY = (
    "weights.safetensors",
    "ema.safetensors",
    "optimizer.safetensors",
    "state.json",
    "history.jsonl",
)
_FORMAT = 1
_INIT = draws.stream("training/initial weights")


class TrainingState:
    """The network, its averages, Adam's moments, the number of optimiser steps taken, and the reports so far.

    An exact resume needs nothing else. The data position is `step * batch_size * accumulate`, and all randomness is a
    function of (seed, position).
    """

    def __init__(self, config: TrainingConfig, network: nn.Module, device: torch.device, way: Way = EAGER):
        self.config, self.way = config, way
        self.network = network.to(device).to(memory_format=way.memory_format).train()
        self.average = copy.deepcopy(self.network).eval().requires_grad_(False)
        # Kept in lists, because a walk over the modules at every step would cost as much as the update itself.
        self._raw: list[Tensor] = list(self.network.parameters())
        self._averaged: list[Tensor] = list(self.average.parameters())
        self.tracks = Tracks(config.ema_stds, self._raw)
        self._names = [name for name, _ in self.network.named_parameters()]
        self.parameters = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        fused = device.type in ("cpu", "cuda")
        self.optimizer = torch.optim.Adam(self.parameters, lr=config.lr, fused=fused, capturable=way.captured)
        self.step = 0
        self.history: list[dict[str, float]] = []

    @classmethod
    def initial(
        cls,
        config: TrainingConfig,
        restorer: RestorerConfig,
        image_shape: tuple[int, int, int],
        steps: int,
        device: torch.device,
        way: Way = EAGER,
    ) -> TrainingState:
        """Return the state of a new network. `config.seed` alone fixes its weights, on every device and worker.

        Args:
            config: The optimisation.
            restorer: The size of the network.
            image_shape: (C, H, W).
            steps: T, as in `build_restorer`.
            device: The device of the network.
            way: How the training computes.
        """
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(
                int(draws.derive(config.seed, _INIT, torch.zeros(1, dtype=torch.int64)))
            )
            network = build_restorer(restorer, image_shape, steps=steps)
        return cls(config, network, device, way)

    def micro_batch(self) -> int | None:
        """Return the last number of images at a time that fitted into memory. None: memory never ran out."""
        sizes = [row["micro_batch"] for row in self.history if "micro_batch" in row]
        return int(sizes[-1]) if sizes else None

    def update(self) -> None:
        """Take an optimiser step on the current gradients, then update the averages that are due."""
        self.optimizer.step()
        self.count_step()

    def count_step(self) -> None:
        """Count an optimiser step that was taken, and update the averages that are due."""
        self.step += 1
        self.tracks.update(self.step)
        if self.step % self.config.ema_every == 0:
            self._update_average(self.step // self.config.ema_every - 1)

    @torch.no_grad()
    def _update_average(self, k: int) -> None:
        decay = self.config.ema_decay
        if self.config.ema_warmup:
            decay = min(decay, (1 + k) / (10 + k))
        torch._foreach_lerp_(self._averaged, self._raw, 1 - decay)
        for averaged, raw in zip(self.average.buffers(), self.network.buffers(), strict=True):
            averaged.copy_(raw)

    def save(self, directory: Path) -> None:
        """Write a checkpoint into the (existing, empty) `directory`."""
        save_tensors(self.network.state_dict(), directory / WEIGHTS)
        save_tensors(self.average.state_dict(), directory / EMA)
        save_tensors(
            {
                f"{index}.{key}": value
                for index, moments in self.optimizer.state_dict()["state"].items()
                for key, value in moments.items()
            },
            directory / OPTIMIZER,
        )
        if self.config.ema_stds:
            save_tensors(self.tracks.state(self._names), directory / TRACKS)
        position = self.step * self.config.batch_size * self.config.accumulate
        state = {"format": _FORMAT, "step": self.step, "position": position, "torch": str(torch.__version__)}
        if self.way != EAGER:
            state["way"] = str(self.way)
        (directory / STATE).write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")
        (directory / HISTORY).write_text("".join(json.dumps(row) + "\n" for row in self.history), encoding="utf-8")

    def load(self, directory: Path) -> None:
        """Load the checkpoint in `directory`.

        Raises:
            ValueError: If it belongs to a training with another number of images per step or that computes in another
                way, or has another format.
        """
        state = read_state(directory)
        position = state["step"] * self.config.batch_size * self.config.accumulate
        if state["position"] != position:
            raise ValueError(
                f"{directory}: saved at sample {state['position']}, but step {state['step']} of batches of "
                f"{self.config.batch_size} x {self.config.accumulate} is sample {position}. It is another training's."
            )
        if (before := state.get("way", str(EAGER))) != str(self.way):
            raise ValueError(
                f"{directory}: so far this training ran in the way: {before}. Here it would run in the way: "
                f"{self.way}. A training keeps its way (training.compile). Go on with it on a machine where that is "
                "possible, or begin a new training."
            )
        self.network.load_state_dict(load_file(directory / WEIGHTS))
        self.average.load_state_dict(load_file(directory / EMA))
        if self.config.ema_stds:
            self.tracks.load(self._names, load_file(directory / TRACKS))
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in load_file(directory / OPTIMIZER).items():
            index, key = name.split(".", 1)
            moments.setdefault(int(index), {})[key] = value
        groups = self.optimizer.state_dict()["param_groups"]
        for number, parameter in enumerate(self.parameters):
            # Adam's fused kernel needs the moments in memory as the weights are.
            for moment, kept in moments.get(number, {}).items():
                if kept.ndim == parameter.ndim == 4:
                    moments[number][moment] = kept.contiguous(memory_format=self.way.memory_format)
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        self.step, self.history = state["step"], read_history(directory)


def read_state(directory: Path) -> dict[str, Any]:
    """Return `state.json` of a checkpoint: format, step, position, torch.

    Raises:
        ValueError: If this version does not read the format.
    """
    state: dict[str, Any] = json.loads((directory / STATE).read_text(encoding="utf-8"))
    if state.get("format") != _FORMAT:
        raise ValueError(f"{directory}: checkpoint format {state.get('format')!r}. This version reads {_FORMAT}.")
    return state


def read_history(directory: str | Path) -> list[dict[str, float]]:
    """Return the reports of a training up to this checkpoint, oldest first: `step` and the metrics of each."""
    return [json.loads(line) for line in (Path(directory) / HISTORY).read_text(encoding="utf-8").splitlines()]


def load_restorer(
    directory: str | Path,
    restorer: RestorerConfig,
    image_shape: tuple[int, int, int],
    steps: int,
    *,
    ema: bool = True,
    device: torch.device | str = "cpu",
) -> nn.Module:
    """Load the restorer of a checkpoint, in eval mode and without gradients for its weights.

    Args:
        directory: The checkpoint.
        restorer: The size of the network.
        image_shape: (C, H, W).
        steps: T, as in `build_restorer`.
        ema: True loads the averaged weights, with which the paper samples. False loads the raw weights.
        device: The device of the network.

    Raises:
        RuntimeError: If the weights belong to another network (raised by torch).
    """
    with torch.random.fork_rng(devices=[]):
        network = build_restorer(restorer, image_shape, steps=steps)
    network.load_state_dict(load_file(Path(directory) / (EMA if ema else WEIGHTS)))
    return network.to(device).eval().requires_grad_(False)

"""How many trainings an hour a card gives if 1, 2, 4 or 8 processes train at once. benchmarks/gpu.py runs it.

Each process trains `digits-quick`'s network again and again for a few seconds, by coldtune's `train`, and counts the
steps that it reported. All processes are started beforehand, and those that do not take part wait. MPS is NVIDIA's
service that lets kernels of several processes run at once. It is started in private folders, and ended by its own
command. Nothing about the card is changed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import ways
from ways import Case

from coldtune import presets
from coldtune.data import DataConfig
from coldtune.diffusion import RestorerConfig
from coldtune.training import TrainingConfig, TrainingTask, train
from training import NoCheckpoints

if TYPE_CHECKING:
    from gpu_parts import Context

MODES = {
    "eager, float32": {"dtype": "float32"},
    "compiled, bfloat16": {"dtype": "bfloat16", "compile": "auto"},
}
CASE = Case("micro", 16, 64)


class TimeIsUpError(Exception):
    """Raised by a report to end a training."""


def serve(device: torch.device, folder: Path) -> None:
    """Answer each line of standard input, `MODE SECONDS START`, with the steps that were trained in that time."""
    torch.set_num_threads(1)
    dataset = ways.random_dataset(folder, CASE)
    degradation = presets.load("digits-quick")["degradation"]

    def trained(mode: str, seconds: float, start: float) -> int:
        settings = {"steps": 300, "report_every": 10, "validate_every": 0, "checkpoint_every": 0, **MODES[mode]}
        task = TrainingTask(
            DataConfig(), str(dataset.path), degradation, RestorerConfig(size="micro"), TrainingConfig(**settings)
        )
        steps = 0

        def report(step: int, metrics: Mapping[str, float]) -> None:
            nonlocal steps
            if time.time() > start + seconds:
                raise TimeIsUpError
            steps += 10

        time.sleep(max(0.0, start - time.time()))
        while True:
            try:
                train(task, NoCheckpoints(), report, device=device)
            except TimeIsUpError:
                return steps

    print("ready", flush=True)
    for line in sys.stdin:
        mode, seconds, start = json.loads(line)
        try:
            answer: Any = trained(mode, seconds, start)
        except Exception as error:
            answer = ways.first_line(error)
        print(json.dumps(answer), flush=True)


@contextmanager
def processes(count: int, device: torch.device, folder: Path, env: Mapping[str, str]) -> Iterator[list[Any]]:
    command = [sys.executable, __file__, str(device), str(folder)]
    # Otherwise each process starts a compiler for each core. The first process fills the cache for all others.
    env = {"TORCHINDUCTOR_COMPILE_THREADS": "4", **env}
    with (folder / "packing.txt").open("a") as log:
        started = [
            subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env={**os.environ, **env}
            )
            for _ in range(count)
        ]
    try:
        for process in started:
            if (line := process.stdout.readline()) != "ready\n":  # type: ignore[union-attr]
                raise RuntimeError(f"a process did not start: {line!r} {(folder / 'packing.txt').read_text()[-500:]}")
        yield started
    finally:
        for process in started:
            process.stdin.close()  # type: ignore[union-attr]
        for process in started:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def together(group: Sequence[Any], mode: str, seconds: float) -> int:
    """Return the steps that all processes of a group trained in `seconds`."""
    request = json.dumps([mode, seconds, time.time() + 0.3]) + "\n"
    for process in group:
        process.stdin.write(request)
        process.stdin.flush()
    answers = [json.loads(process.stdout.readline() or '"a process ended"') for process in group]
    if errors := [answer for answer in answers if not isinstance(answer, int)]:
        raise RuntimeError(errors[0])
    return sum(answers)


@contextmanager
def mps(folder: Path) -> Iterator[dict[str, str]]:
    """Run CUDA's MPS in private folders, and give the environment of its clients."""
    binary = shutil.which("nvidia-cuda-mps-control")
    if binary is None:
        raise FileNotFoundError("nvidia-cuda-mps-control is not installed")
    env = {"CUDA_MPS_PIPE_DIRECTORY": str(folder / "mps"), "CUDA_MPS_LOG_DIRECTORY": str(folder / "mps-log")}
    for path in env.values():
        Path(path).mkdir()
    run = {"env": {**os.environ, **env}, "check": True, "timeout": 20, "stdout": subprocess.DEVNULL}
    subprocess.run([binary, "-d"], **run)  # type: ignore[call-overload]
    try:
        yield env
    finally:
        subprocess.run([binary], input=b"quit\n", **run)  # type: ignore[call-overload]


def measure(context: Context) -> dict[str, Any]:
    from gpu_parts import MEASURED, NO_CUDA, result

    ways.random_dataset(context.folder, CASE)  # before several processes look for it
    counts = (1, 2) if context.quick else (1, 2, 4, 8)
    seconds = 0.5 if context.quick else 4.0
    table: dict[str, dict[int, float | str]] = {}
    made = result(MEASURED, "nothing was measured")

    def keep(row: str, count: int, value: float | str) -> None:
        nonlocal made
        table.setdefault(row, {})[count] = value
        made = result(MEASURED, _shown(table, counts, seconds), table=table)
        context.save(made)

    for with_mps in (False, True):
        label = "with MPS" if with_mps else "without MPS"
        try:
            if with_mps and not context.cuda:
                raise FileNotFoundError(NO_CUDA)
            service = mps(context.folder) if with_mps else _nothing()
            with service as env, processes(max(counts), context.device, context.folder, env) as all_of_them:
                for mode, settings in MODES.items():
                    if settings.keys() - TrainingConfig.model_fields.keys() or (
                        "compile" in settings and not context.cuda
                    ):
                        keep(f"{mode}, {label}", 1, "skipped: no training.compile or no CUDA")
                        continue
                    together(all_of_them[:1], mode, 0.1)  # the first compiles, the others then find its work
                    together(all_of_them, mode, 0.1)
                    for count in counts:
                        steps = together(all_of_them[:count], mode, seconds)
                        keep(f"{mode}, {label}", count, steps / 300 / seconds * 3600)
        except Exception as error:
            keep(label, 1, ways.first_line(error))
    return made


@contextmanager
def _nothing() -> Iterator[dict[str, str]]:
    yield {}


def _shown(table: Mapping[str, Mapping[int, float | str]], counts: Sequence[int], seconds: float) -> str:
    lines = [
        "`micro`, 16 px, batch 64, trainings of 300 steps without validation, per hour. "
        f"Each number is from {seconds:g} s.\n",
        f"| processes | {' | '.join(map(str, counts))} |",
        f"|:--|{'--:|' * len(counts)}",
    ]
    for row, values in table.items():
        cells = [values.get(count, "") for count in counts]
        shown = [f"{value:,.0f}" if isinstance(value, float) else str(value) for value in cells]
        lines.append(f"| {row} | {' | '.join(shown)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    serve(torch.device(sys.argv[1]), Path(sys.argv[2]))

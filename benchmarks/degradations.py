"""Compare the closed form of the blur with t convolutions, which is the usual way to compute D(x, t).

    uv run benchmarks/degradations.py > benchmarks/$(date +%F)-degradations.md

The settings are the paper's for MNIST, CIFAR-10 and CelebA generation, on a single CPU thread. Three operations are
timed: degrading a batch, degrading a training batch with a severity for each image, and all degradations of a run of
Algorithm 2, whose restorer costs nothing. The old and the new code alternate in one process. A number is the median of
the process's CPU seconds, because other load on the machine disturbs them less than wall time. If the machine has a
GPU, the script also prints the share of its memory bandwidth that the closed form reaches, and its share of a training
step.
"""

from __future__ import annotations

import argparse
import platform
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from coldtune import presets
from coldtune.diffusion import build_degradation, build_restorer, sample
from coldtune.diffusion.degradations import Degradation

LONG = 100_000.0
"""Millions of multiply-adds. Beyond this, the iterated Algorithm 2 is extrapolated from a few convolutions."""
ENOUGH = 0.1
"""CPU seconds for which a quick operation is repeated, so that it can be measured."""
AIMS = {"degrade": {32: 300, 128: 3000}, "TACoS": {32: 200, 128: 1500}}


@dataclass(frozen=True)
class Setting:
    name: str
    preset: str
    batch: int


SETTINGS = (
    Setting("MNIST", "paper/mnist-blur", 32),
    Setting("CIFAR-10", "paper/cifar10-blur", 32),
    Setting("CelebA generation", "paper/celeba-blur-generation", 8),
)


class Iterated:
    """D(x, t) as published, with a depthwise k x k convolution for each of the t steps."""

    def __init__(self, config: dict[str, Any], channels: int) -> None:
        self.steps, size, sigma = config["steps"], config["kernel_size"], config["sigma"]
        self.padding, self.radius, self.channels = config["padding"], size // 2, channels
        step = torch.arange(self.steps, dtype=torch.float64)
        deviation = {
            "constant": torch.full_like(step, sigma["start"]),
            "linear": sigma["start"] + sigma.get("rate", 0) * step,
            "exponential": sigma["start"] * torch.exp(sigma.get("rate", 0) * step),
        }[sigma["schedule"]]
        offset = torch.arange(size, dtype=torch.float64) - self.radius
        weights = torch.exp(-(offset**2) / (2 * deviation[:, None] ** 2))
        weights /= weights.sum(dim=1, keepdim=True)
        kernels = (weights[:, :, None] * weights[:, None, :]).float()
        self.kernels = kernels[:, None, None].expand(-1, channels, 1, -1, -1).contiguous()

    def convolve(self, x: Tensor, step: int) -> Tensor:
        return F.conv2d(F.pad(x, [self.radius] * 4, mode=self.padding), self.kernels[step], groups=self.channels)

    def degrade(self, x: Tensor, t: int) -> Tensor:
        for step in range(t):
            x = self.convolve(x, step)
        return x

    def degrade_each(self, x: Tensor, t: Tensor) -> Tensor:
        """Degrade the whole batch up to its largest t, keep every level, and pick the level of each image."""
        levels = [x]
        for step in range(int(t.max())):
            levels.append(self.convolve(levels[-1], step))
        return torch.stack(levels)[t, torch.arange(len(x), device=x.device)]

    def tacos(self, x: Tensor, x0_hat: Tensor) -> Tensor:
        for s in range(self.steps, 0, -1):
            x = x - self.degrade(x0_hat, s) + self.degrade(x0_hat, s - 1)
        return x


@dataclass(frozen=True)
class Result:
    """Median CPU seconds of an operation by iteration and in closed form."""

    setting: str
    size: int
    operation: str
    iterated: float
    closed: float
    difference: float | None
    extrapolated: bool = False

    @property
    def ratio(self) -> float:
        return self.iterated / self.closed

    def row(self) -> str:
        aim = AIMS.get(self.operation.split(",")[0], {}).get(self.size)
        agreement = "-" if self.difference is None else f"{self.difference:.1e}"
        return (
            f"| {self.setting} | {self.operation} | {seconds(self.iterated)}{' *' if self.extrapolated else ''} | "
            f"{seconds(self.closed)} | {self.ratio:,.0f} | {f'{aim:,}' if aim else '-'} | {agreement} |"
        )


def seconds(value: float) -> str:
    return f"{value * 1e3:.3g} ms" if value < 1 else f"{value:.3g} s" if value < 1000 else f"{value:,.0f} s"


def cpu_seconds(call: Callable[[], object], at_least: float = 0.0) -> float:
    """Return the CPU seconds of a call, averaged over calls until `at_least` seconds have passed."""
    calls, start = 0, time.process_time()
    while calls == 0 or time.process_time() - start < at_least:
        call()
        calls += 1
    return (time.process_time() - start) / calls


def alternately(old: Callable[[], object], new: Callable[[], object], runs: int) -> tuple[float, float]:
    """Return the medians of old and new, timed alternately so that other load affects both."""
    new()  # fills tables and caches
    pairs = [(cpu_seconds(old, ENOUGH), cpu_seconds(new, ENOUGH)) for _ in range(runs)]
    olds, news = zip(*pairs, strict=True)
    return statistics.median(olds), statistics.median(news)


def measure(setting: Setting, runs: int) -> list[Result]:
    tree = presets.load(setting.preset)
    shape = presets.image_shape(tree)
    d, old = build_degradation(tree["degradation"], shape), Iterated(tree["degradation"], shape[0])
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(setting.batch, *shape, generator=generator) * 2 - 1
    t = torch.randint(1, d.steps + 1, (setting.batch,), generator=generator)
    name = f"{setting.name}, {setting.batch}x{'x'.join(map(str, shape))}, k = {tree['degradation']['kernel_size']}"

    def result(operation: str, times: tuple[float, float], difference: float | None, guessed: bool = False) -> Result:
        print(f"{name}: {operation}: {times}", file=sys.stderr)
        return Result(name, shape[1], operation, *times, difference, guessed)

    pairs = {
        f"degrade, t = T = {d.steps}": (lambda: old.degrade(x, d.steps), lambda: d(x, d.steps)),
        f"training batch, random t (the largest {int(t.max())})": (lambda: old.degrade_each(x, t), lambda: d(x, t)),
    }
    results = [
        result(operation, alternately(before, after, runs), largest_difference(before, after))
        for operation, (before, after) in pairs.items()
    ]
    return [*results, measure_tacos(d, old, x, runs, result)]


def measure_tacos(d: Degradation, old: Iterated, x: Tensor, runs: int, result: Callable[..., Result]) -> Result:
    x_T, x0_hat = d(x, d.steps), 0.9 * x + 0.05
    after = lambda: sample(lambda x_s, s: x0_hat, d, x_T, {"algorithm": "tacos"})  # noqa: E731
    operation = f"TACoS, T = {d.steps}: {d.steps**2:,} convolutions"
    if x.numel() * old.kernels[0, 0].numel() * d.steps**2 / 1e6 < LONG:
        before = lambda: old.tacos(x_T, x0_hat)  # noqa: E731
        return result(operation, alternately(before, after, runs), largest_difference(before, after))
    some = [round(i * (d.steps - 1) / 4) for i in range(5)]
    before = lambda: [old.convolve(x, step) for step in some]  # noqa: E731
    single, closed = alternately(before, after, runs)
    return result(operation, (single / len(some) * d.steps**2, closed), None, True)


def largest_difference(before: Callable[[], Tensor], after: Callable[[], Tensor]) -> float:
    return float((before() - after()).abs().max())


def measure_gpu(setting: Setting, runs: int) -> str:
    """Return a row with the closed form's share of a plain copy's bandwidth and of the preset's training step."""
    tree = presets.load(setting.preset)
    shape, device = presets.image_shape(tree), torch.device("cuda")
    d, batch = build_degradation(tree["degradation"], shape), tree["training"]["batch_size"]
    x = torch.rand(batch, *shape, device=device) * 2 - 1
    t = torch.randint(1, d.steps + 1, (batch,), device=device)
    degrade = gpu_seconds(lambda: d(x, t), runs)
    # The least traffic: the images in and out, and a matrix for the severity of each image.
    moved = 4 * (2 * x.numel() + batch * shape[1] * shape[2])
    restorer = build_restorer(tree["restorer"], shape, d.steps).to(device)
    optimizer = torch.optim.Adam(restorer.parameters(), lr=2e-5)

    def step() -> None:
        loss = (restorer(d(x, t), t) - x).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    training, bandwidth = gpu_seconds(step, runs), copy_bandwidth(runs)
    return (
        f"| {setting.name}, {batch}x{'x'.join(map(str, shape))} | {degrade * 1e6:.0f} us | "
        f"{moved / degrade / 1e9:,.0f} GB/s, {moved / degrade / bandwidth:.0%} of {bandwidth / 1e9:,.0f} | "
        f"{training * 1e3:.1f} ms | {degrade / training:.1%} |"
    )


def gpu_seconds(call: Callable[[], object], runs: int) -> float:
    """Return the median time of a call on the device, with 20 calls in each run."""
    times = []
    for _ in range(runs + 1):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(20):
            call()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end) / 20e3)
    return statistics.median(times[1:])  # the first warms up


def copy_bandwidth(runs: int) -> float:
    """Return the bytes per second, read and written, of copying 1 GiB on the device."""
    source = torch.empty(2**28, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.nbytes / gpu_seconds(lambda: target.copy_(source), runs)


def table_costs(setting: Setting) -> str:
    tree = presets.load(setting.preset)
    shape = presets.image_shape(tree)
    d = build_degradation(tree["degradation"], shape)
    x, level = torch.zeros(1, *shape), torch.ones(1, dtype=torch.int64)
    spent = cpu_seconds(lambda: d(x, level))
    megabytes = (d.steps + 1) * shape[1] * shape[2] * 4 / 1e6
    return f"{setting.name} {seconds(spent)}, {megabytes:.1f} MB"


def machine() -> str:
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
        cpu = names[0] if names else cpu
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return f"{cpu}; GPU: {gpu}; Python {platform.python_version()}, torch {torch.__version__}"


def commit() -> str:
    asked = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return asked.stdout.strip() or "unknown"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="a figure is the median of so many")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"# The blur in closed form against convolving t times, {date.today().isoformat()}\n")
    print(f"- Command: `{shlex.join(['uv', 'run', 'benchmarks/degradations.py', *sys.argv[1:]])}`")
    print(f"- Commit: {commit()}\n- Machine: {machine()}")
    print(f"- CPU seconds on one thread, median of {options.runs} runs, old and new in turn; float32\n")
    with torch.no_grad():
        print("| setting | operation | iterated | closed form | ratio | aim | largest difference |")
        print("|:--|:--|--:|--:|--:|--:|--:|")
        for setting in SETTINGS:
            for result in measure(setting, options.runs):
                print(result.row(), flush=True)
        print("\n\\* Extrapolated: five single convolutions timed, times T^2 over five. It was not run in full.\n")
        print(f"Tables, made once, not in the figures above: {'; '.join(map(table_costs, SETTINGS))}.\n")
    print("## GPU\n")
    if not torch.cuda.is_available():
        print("Not measured: no GPU at hand.")
        return
    print("| setting | degrading a training batch | memory traffic, of a copy's | training step | share of the step |")
    print("|:--|--:|--:|--:|--:|")
    for setting in SETTINGS:
        print(measure_gpu(setting, options.runs), flush=True)


if __name__ == "__main__":
    main()

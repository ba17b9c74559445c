"""Compare the last step of FID, from moments to the distance, with scipy's square root and with torchmetrics.

    uv run benchmarks/fid.py > benchmarks/$(date +%F)-fid.md

Throughput and memory are measured too. All candidates run alternately in one process, on a single thread and on the
same moments. A time is the process's CPU seconds, because other load on the machine disturbs them less than wall time.
Memory is the peak of resident memory minus the memory before the call.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import platform
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
import scipy
import scipy.linalg
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from coldtune.data import DataConfig, prepare
from coldtune.metrics import (
    DISTANCES,
    FeatureMoments,
    MemoryCache,
    ProtocolConfig,
    Reference,
    build_extractor,
    estimates,
    frechet_distance,
    judge,
    reference_features,
    reference_statistics,
    resolve,
)

REPEATS = {64: 51, 512: 11, 2048: 3}
IMAGES = 10_000
BATCH = 256
AIMS = {"sqrtm": 10.0, "torchmetrics": 2.5}  # at d = 2048
AGREEMENT = 1e-8
OURS, INTERVAL = "coldtune", "coldtune, from features, with its interval"


def features(dim: int, seed: int, shift: float) -> Tensor:
    """Return vectors (IMAGES, dim), non-negative as after a ReLU, whose spread in direction k falls as 1 / k."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(IMAGES, dim, generator=generator, dtype=torch.float64)
    mix = torch.linalg.qr(torch.randn(dim, dim, generator=torch.Generator().manual_seed(9), dtype=torch.float64))[0]
    return (noise / torch.arange(1, dim + 1).double() @ mix + 0.02 + shift / dim).clamp(min=0)


class AsGiven(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.num_features = dim

    def forward(self, x: Tensor) -> Tensor:
        return x


def finishes(dim: int) -> dict[str, Callable[[], float]]:
    """Return the candidates by name. Each turns given moments into the distance."""
    from torchmetrics.image.fid import FrechetInceptionDistance

    x, y = features(dim, 0, 0.3), features(dim, 1, 0.0)
    reference, moments = Reference.of(y), FeatureMoments.of(x)
    of_reference = FeatureMoments.of(y)
    metric = FrechetInceptionDistance(feature=AsGiven(dim))
    metric.update(y, real=True)
    metric.update(x, real=False)
    s, r = moments.covariance.numpy(), reference.covariance.numpy()
    shift = (moments.mean - reference.mean).numpy()

    def sqrtm() -> float:
        cross = np.trace(scipy.linalg.sqrtm(s @ r)).real
        return float(shift @ shift + np.trace(s) + np.trace(r) - 2 * cross)

    def torchmetrics() -> float:
        metric._computed = None  # otherwise the second call would return a cached value
        return float(metric.compute())

    def with_influences() -> float:
        return estimates(x, None, reference, ["fid"])["fid"].interval.value

    return {
        OURS: lambda: frechet_distance(reference, moments),
        "coldtune, the reference's root too": lambda: frechet_distance(Reference.of(of_reference), moments),
        INTERVAL: with_influences,
        "torchmetrics": torchmetrics,
        "sqrtm": sqrtm,
    }


def by_singular_values(x: Tensor, y: Tensor) -> float:
    """Compute the distance from the features, slowly but without squares, so that no digits are lost."""
    factors = [torch.linalg.qr(z - z.mean(0), mode="r").R / (len(z) - 1) ** 0.5 for z in (x, y)]
    shift, cross = x.mean(0) - y.mean(0), torch.linalg.svdvals(factors[0] @ factors[1].T).sum()
    return float(shift @ shift + sum((z * z).sum() for z in factors) - 2 * cross)


def timed(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def in_turn(works: dict[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            seconds[name].append(timed(work))
        print({name: round(runs[-1], 4) for name, runs in seconds.items()}, file=sys.stderr, flush=True)
    return seconds


def status(field: str) -> float:
    """Return VmRSS or VmHWM of this process in MB."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024


def extra_memory(work: Callable[[], object]) -> float:
    """Return the peak of resident memory during the call minus the memory before it, in MB. Linux only."""
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    work()
    return status("VmHWM") - before


def shown(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1e3 * seconds:.3g} ms"


def finish_rows(dim: int) -> tuple[list[str], dict[str, float], float]:
    """Return rows of the table, the ratios of the medians, and the largest relative error."""
    works = finishes(dim)
    values = {name: work() for name, work in works.items()}
    seconds = in_turn(works, REPEATS[dim])
    ours = statistics.median(seconds[OURS])
    ratios = {name: statistics.median(runs) / ours for name, runs in seconds.items()}
    exact = by_singular_values(features(dim, 0, 0.3), features(dim, 1, 0.0))
    apart = {name: abs(value / exact - 1) for name, value in values.items()}
    rows = [
        f"| {dim} | {name} | {shown(min(runs))} | {shown(statistics.median(runs))} | {ratios[name]:.1f} | "
        f"{apart[name]:.1e} | {extra_memory(works[name]):.0f} MB |"
        for name, runs in seconds.items()
    ]
    return rows, ratios, max(apart.values())


def streaming(dim: int) -> str:
    x = features(dim, 0, 0.3)

    def stream() -> None:
        moments = FeatureMoments(dim)
        for batch in x.split(BATCH):
            moments.update(batch)

    stream()
    seconds = [timed(stream) for _ in range(5)]
    rates = [IMAGES / run for run in seconds]
    return f"| {dim} | {max(rates):,.0f} | {statistics.median(rates):,.0f} | {extra_memory(stream):.0f} MB |"


def judging(folder: Path) -> list[str]:
    """Time `judge` on the validation split of the digits, with all metrics, and with FID and the image scores only."""
    extractor, cache = build_extractor("digits"), MemoryCache()
    dataset = prepare(DataConfig(name="digits"), folder, progress=False)
    protocol = resolve(ProtocolConfig(), extractor, dataset)
    clean = dataset.split("validation").images
    noise = 20 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    made = (clean + noise).round().clamp(0, 255).to(torch.uint8)
    reference = reference_statistics(extractor, clean, protocol, cache)
    known = reference_features(extractor, clean, protocol, cache)
    rows = []
    for what, names in (("FID, SSIM, RMSE, PSNR", ("fid",)), ("all nine metrics", tuple(DISTANCES))):

        def work(names: tuple[str, ...] = names) -> None:
            judge(made, clean, extractor, reference, protocol, known, names)

        work()
        seconds = [timed(work) for _ in range(11)]
        middle = statistics.median(seconds)
        rows.append(
            f"| {what} | {len(clean)} | {shown(min(seconds))} | {shown(middle)} | {len(clean) / middle:,.0f} | "
            f"{extra_memory(work):.0f} MB |"
        )
    return rows


def git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout.strip()


def verdict(ratios: dict[str, float], apart: float) -> list[str]:
    lines = []
    for name, aim in AIMS.items():
        met = "met" if ratios[name] >= aim else "missed"
        lines.append(f"- {name} at d = 2048: {ratios[name]:.1f} times as long as coldtune, aim {aim:g}: {met}.")
    met = "met" if apart <= AGREEMENT else "missed"
    return [
        *lines,
        f"- All values lie within {apart:.1e} relative of that of the singular values, aim {AGREEMENT:g}: {met}.",
    ]


def main() -> None:
    import torchmetrics

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dims", type=int, nargs="+", choices=REPEATS, default=list(REPEATS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    load, commit = os.getloadavg()[0], git("rev-parse", "--short", "HEAD")
    with threadpool_limits(1), tempfile.TemporaryDirectory() as folder:
        found = {dim: finish_rows(dim) for dim in arguments.dims}
        streams = [streaming(dim) for dim in arguments.dims]
        judged = judging(Path(folder))
    repeats = ", ".join(f"{REPEATS[dim]} at d = {dim}" for dim in arguments.dims)
    print(f"""# The finish of FID, {date.today()}

- Command: `uv run {shlex.join(sys.argv)}`
- Commit: {commit}
- Machine: {cpu()}, one thread for everything, load average {load:.1f} at the start and {os.getloadavg()[0]:.1f} at the
  end, on {os.cpu_count()} cores; Python {platform.python_version()}, torch {torch.__version__}, numpy {np.__version__},
  scipy {scipy.__version__}, torchmetrics {torchmetrics.__version__}
- CPU seconds, in turn in one process; runs: {repeats}. {IMAGES:,} float64 vectors in each set.

## From moments to the distance

The root of the reference's covariance is cached, as in a search, except where said. sqrtm is `scipy.linalg.sqrtm` of
the product of the covariances. Ratio: of medians, to coldtune. Error: against the sum of the singular values of the
features' triangular factors, which squares nothing.

| d | what | minimum | median | ratio | relative error | memory |
|--:|:--|--:|--:|--:|--:|--:|""")
    print("\n".join(row for rows, _, _ in found.values() for row in rows))
    if 2048 in found:
        print("\n" + "\n".join(verdict(found[2048][1], max(apart for _, _, apart in found.values()))))
    print(f"\n## Streaming\n\n`FeatureMoments` in batches of {BATCH}, images a CPU second.\n")
    print("| d | best | median | memory |\n|--:|--:|--:|--:|\n" + "\n".join(streams))
    print("\n## A judgement\n\n`judge` on scikit-learn's digits (d = 64), extraction and intervals included.\n")
    print("| what | N | minimum | median | images/s | memory |\n|:--|--:|--:|--:|--:|--:|\n" + "\n".join(judged))


def cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


if __name__ == "__main__":
    main()

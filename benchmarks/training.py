"""Compare ways to train a restorer: a plain loop as published code writes it, and coldtune's own `train`.

    uv run benchmarks/training.py > benchmarks/$(date +%F)-training.md
    uv run benchmarks/training.py --cases base-32 micro-16-b512 --ways plain bfloat16

All ways train the same network on random images that lie on the device. The ways take turns in one process, so their
ratios come from one run. Before and after each span of steps the device is synchronised, and a number is the median of
all spans. The plain loop draws its batch, degrades it, takes a step of Adam, and updates an average at each step, as
`train` does. "TF32 convolutions" is torch's default on NVIDIA's cards. All other rows of dtype float32 compute in IEEE
single precision.

MFU is the share of the rate of a large matrix product in the same dtype on the same device. It counts the forward and
the backward pass of the network only.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import ways
from torch import Tensor
from ways import Case, Way

from coldtune.data import DataConfig, Dataset, to_float
from coldtune.diffusion import RestorerConfig, build_degradation, build_restorer
from coldtune.training import TrainingConfig, TrainingTask, train

CASES = {
    "cuda": (
        *("base-32", "micro-16", "micro-16-b512", "micro-32", "micro-32-b512", "tiny-16", "tiny-16-b512", "tiny-32"),
        *("tiny-32-b512", "small-32", "large-128"),
    ),
    "cpu": ("micro-16",),
}
COMPARED = ("x plain", "MFU", "peak memory")
"""The headings of a table that the scripts share (`markdown`)."""
LR, EMA_DECAY = 1e-4, 0.995
_LEAST_STEPS, _MOST_STEPS = 5, 2000  # of a span. In the first span, a way may capture its graph at the fourth step.


class NoCheckpoints:
    """Checkpoints that are never written, so that only steps are timed."""

    def latest(self, at_most: int) -> None:
        return None

    def save(self, step: int, write: Callable[[Path], None]) -> None:
        pass


class PlainLoop:
    """A training as published code writes it, with its images on the device."""

    def __init__(self, way: Way, case: Case, dataset: Dataset, device: torch.device) -> None:
        self.case, self.device = case, device
        torch.manual_seed(0)
        self.images = dataset.split("train").images.to(device)
        self.network = build_restorer({"size": case.size}, case.shape, case.steps).to(device).train()
        self.average = copy.deepcopy(self.network).eval().requires_grad_(False)
        self.pair = list(self.average.parameters()), list(self.network.parameters())
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=LR)
        closed = build_degradation(case.blur, case.shape)
        self.degrade: Callable[[Tensor, Tensor], Tensor] = closed
        if way.iterated:
            self.degrade = ways.iterated_blur(case, device).degrade_each

    def step(self) -> None:
        index = torch.randint(len(self.images), (self.case.batch,), device=self.device)
        x0 = to_float(self.images[index])
        t = torch.randint(1, self.case.steps + 1, (self.case.batch,), device=self.device)
        with torch.no_grad():
            x_t = self.degrade(x0, t)
        loss = (self.network(x_t, t) - x0).abs().mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(*self.pair, 1 - EMA_DECAY)

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self.step()


def plain_spans(way: Way, case: Case, dataset: Dataset, device: torch.device, steps: int, count: int) -> list[float]:
    """Train anew, and return the seconds of `count` spans of `steps`, after a span that warms up."""
    with ways.precision(way, device):
        loop = PlainLoop(way, case, dataset, device)
        loop.run(steps if count else 1)
        ways.synchronize(device)
        return [ways.timed(lambda: loop.run(steps), device) for _ in range(count)]


def our_spans(way: Way, case: Case, dataset: Dataset, device: torch.device, steps: int, count: int) -> list[float]:
    """Do the same by `train`. A report reads the losses, so it waits for the device."""
    marks: list[float] = []
    length = {"steps": steps * (count + 1), "report_every": steps} if count else {"steps": 1, "report_every": 1}
    settings = {"batch_size": case.batch, "lr": LR, "ema_decay": EMA_DECAY, "ema_warmup": False}
    quiet = {"validate_every": 0, "checkpoint_every": 0}

    def report(step: int, metrics: Mapping[str, float]) -> None:
        marks.append(time.perf_counter())

    task = TrainingTask(
        data=DataConfig(name="folder", image_size=case.pixels),
        dataset_path=str(dataset.path),
        degradation=case.blur,
        restorer=RestorerConfig(size=case.size),
        training=TrainingConfig(**settings, **length, **quiet, **way.training),
        **way.for_task(),
    )
    train(task, NoCheckpoints(), report, device=device)
    return [after - before for before, after in pairwise(marks)]


def measure_case(
    case: Case,
    chosen: Sequence[Way],
    device: torch.device,
    folder: Path,
    rounds: int,
    seconds: float,
    keep: Callable[[list[dict[str, Any]]], object] = lambda _: None,
) -> list[dict[str, Any]]:
    """Return a row for each way, measured in turn. `keep` is called with the rows so far whenever there is more."""
    dataset = ways.random_dataset(folder, case)
    work = ways.flops(case, device, backward=True)
    rows: list[dict[str, Any]] = []

    def finish() -> None:
        for row in rows:
            if "rough" in row and "skipped" not in row:
                span = statistics.median(row["spans"] or [row["rough"] * row["steps"]])
                row["images_per_s"] = case.batch * row["steps"] / span
                rate = ways.matmul_rate(row["dtype"], device)
                row["mfu"] = row["images_per_s"] * work / rate if rate else None
        keep(rows)

    for way in chosen:
        row: dict[str, Any] = {"case": str(case), "way": way.name, "dtype": way.dtype, "batch": case.batch, "spans": []}
        rows.append(row | {"flop_per_image": work})
        if reason := way.unavailable(device):
            rows[-1]["skipped"] = reason
            continue
        attempt(rows[-1], lambda way=way: _begin(way, case, dataset, device, seconds, rows[-1]))
        finish()
    for _ in range(rounds):
        for way, row in zip(chosen, rows, strict=True):
            if "skipped" not in row:
                attempt(row, lambda way=way, row=row: _round(way, case, dataset, device, row))
        finish()
    return rows


def spans_of(way: Way) -> Callable[..., list[float]]:
    return plain_spans if way.plain else our_spans


def _begin(way: Way, case: Case, dataset: Dataset, device: torch.device, seconds: float, row: dict[str, Any]) -> None:
    """Measure the time to the first step, twice, and choose the number of steps in a span."""
    call = spans_of(way)
    with ways.noting(row):
        for name in ("first_s", "again_s"):
            row[name] = ways.timed(lambda: call(way, case, dataset, device, 1, 0), device)
        step = min(call(way, case, dataset, device, 2, 2)) / 2  # a graph may be captured in the other span
    row["rough"] = step
    row["steps"] = max(_LEAST_STEPS, min(_MOST_STEPS, math.ceil(seconds / step)))
    print(
        f"{case}: {way.name}: first step {row['first_s']:.1f} s, {step * 1e3:.2f} ms/step", file=sys.stderr, flush=True
    )


def _round(way: Way, case: Case, dataset: Dataset, device: torch.device, row: dict[str, Any]) -> None:
    with ways.noting(row), ways.peak_memory(device, row):
        row["spans"] += spans_of(way)(way, case, dataset, device, row["steps"], 2)


def attempt(row: dict[str, Any], work: Callable[[], None]) -> None:
    """Do a part of the work for a row. An error becomes the row's reason."""
    try:
        work()
    except Exception as error:
        row["skipped"] = f"failed: {ways.first_line(error)}"
        print(f"{row['case']}: {row['way']}: {row['skipped']}", file=sys.stderr, flush=True)
    gc.collect()


def spread(images: float, spans: Sequence[float]) -> str:
    """Return the lowest and the highest rate of spans with so many images each."""
    if not spans:
        return "rough: from two steps"
    return f"{ways.rate_text(images / max(spans))} to {ways.rate_text(images / min(spans))}"


def table(case: Case, rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a case's rows as Markdown."""

    def cells(row: Mapping[str, Any], compared: Sequence[str]) -> list[str]:
        rate = f"{ways.rate_text(row['images_per_s'])} ({spread(case.batch * row['steps'], row['spans'])})"
        return [rate, *compared, f"{row['first_s']:.2f}", f"{row['again_s']:.2f}"]

    heads = ("images/s", *COMPARED, "first step, s", "first step again, s")
    return markdown(f"{case}: {case.describe()}", heads, rows, cells)


def markdown(
    title: str,
    heads: Sequence[str],
    rows: Sequence[Mapping[str, Any]],
    cells: Callable[[Mapping[str, Any], Sequence[str]], Sequence[str]],
) -> str:
    """Return a table with a row for each way. A way that was not measured says why.

    Args:
        heads: The headings after `way`.
        cells: Returns the cells of a row, from the row and its cells under `COMPARED`.
    """
    lines = [f"### {title}\n", f"| way | {' | '.join(heads)} |", f"|:--|{'--:|' * len(heads)}"]
    base = next((row["images_per_s"] for row in rows if row["way"] == ways.PLAIN and "images_per_s" in row), None)
    for row in rows:
        if "skipped" in row or "images_per_s" not in row:
            reason = f"not measured: {row.get('skipped', 'stopped')}"
            lines.append(f"| {row['way']} | {reason} |{' |' * (len(heads) - 1)}")
            continue
        compared = [
            f"{row['images_per_s'] / base:.2f}" if base else "-",
            "-" if row["mfu"] is None else f"{row['mfu']:.1%}",
            ways.bytes_text(row.get("peak_bytes")),
        ]
        lines.append(f"| {' | '.join([row['way'], *cells(row, compared)])} |")
    return "\n".join([*lines, *ways.notes(rows), ""])


def rates(rows: Sequence[Mapping[str, Any]], device: torch.device) -> str:
    """Return the measured rates of a matrix product, in a line."""
    found = {dtype: ways.matmul_rate(dtype, device) for dtype in dict.fromkeys(row["dtype"] for row in rows)}
    shown = ", ".join(f"{dtype} {rate / 1e12:.3g} TFLOP/s" for dtype, rate in found.items() if rate)
    return f"Measured matrix products: {shown}."


def parser_of(description: str | None, spans: str) -> argparse.ArgumentParser:
    """Return the parser of a script that compares ways. `spans` says what a way does in a round."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", metavar="SIZE-PIXELS[-bBATCH]", help="default: those of the device")
    parser.add_argument("--ways", nargs="+", help="names of ways, or parts of names (default: all)")
    parser.add_argument("--device", help="default: the GPU if there is a GPU")
    parser.add_argument("--rounds", type=int, default=3, help=f"turns of each way, of {spans} each (default 3)")
    parser.add_argument("--seconds", type=float, default=0.5, help="length of a span (default 0.5)")
    parser.add_argument("--json", type=Path, help="also write all rows into this file")
    return parser


def print_cases(
    cases: Sequence[str],
    device: torch.device,
    file: Path | None,
    measure: Callable[[Case, Path], list[dict[str, Any]]],
    show: Callable[[Case, Sequence[Mapping[str, Any]]], str],
) -> None:
    """Measure cases one after another, and print a table of each.

    Args:
        file: Gets all rows as JSON after each case.
        measure: Returns the rows of a case. Its second argument is a scratch folder.
        show: Returns the table of a case.
    """
    rows: list[dict[str, Any]] = []
    ways.warm_up(device)
    with tempfile.TemporaryDirectory() as folder:
        for case in map(Case.parse, cases):
            found = measure(case, Path(folder))
            print(show(case, found), flush=True)
            rows += found
            if file:
                file.write_text(json.dumps(rows, indent=1))
    print(rates(rows, device))


def main() -> None:
    options = parser_of(__doc__, "two spans").parse_args()
    device = ways.pick_device(options.device)
    print(ways.heading("Ways to train", "training.py", device))
    print(f"- Median of {2 * options.rounds} spans of about {options.seconds:g} s (lowest to highest), in turn\n")

    def measure(case: Case, folder: Path) -> list[dict[str, Any]]:
        return measure_case(case, ways.chosen(options.ways), device, folder, options.rounds, options.seconds)

    print_cases(options.cases or CASES[device.type], device, options.json, measure, table)


if __name__ == "__main__":
    main()

"""Compare ways to sample by Algorithm 2 over all T steps: a plain loop, and coldtune's own sampling of a trial.

    uv run benchmarks/sampling.py > benchmarks/$(date +%F)-sampling.md
    uv run benchmarks/sampling.py --cases large-128 --images 8

The rows of the plain loop call the network and D as published code does, or `coldtune.sample` with D in closed form.
The other rows are the stage `sample` of a trial with these settings of `training:`, from its checkpoint to its 8-bit
images. All rows use the same untrained network, and it is as fast as a trained network. The ways take turns in one
process. A number is the median of all spans, and the device is synchronised before and after each span. NFE are
evaluations of the network. A row with a star is extrapolated from five of its T steps.
"""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import ways
from ways import Case, Way

from coldtune.data import Dataset, to_uint8
from coldtune.diffusion import build_degradation, sample
from coldtune.diffusion.restorer import RestorerConfig
from coldtune.stages.chain import Chain
from coldtune.stages.trial import parse_trial
from coldtune.store.store import Store
from coldtune.training import TrainingConfig, load_restorer
from coldtune.training.state import TrainingState
from training import COMPARED, attempt, markdown, parser_of, print_cases, spread

CASES = {"cuda": ("base-32", "micro-16", "small-32"), "cpu": ("micro-16",)}
IMAGES = {16: 512, 32: 128, 128: 16}
"""Images of a span, by image size."""
_LONG = 100
"""If T is larger, the plain loop that iterates its blur is extrapolated, because it needs T^2 convolutions."""
_AT_ONCE = 256


def checkpoint(case: Case, folder: Path) -> Path:
    """Write a checkpoint of an untrained network, and return its folder."""
    path = folder / f"checkpoint-{case}"
    if not path.exists():
        path.mkdir()
        restorer = RestorerConfig(size=case.size)
        TrainingState.initial(TrainingConfig(), restorer, case.shape, case.steps, torch.device("cpu")).save(path)
    return path


class PlainSampling:
    """Algorithm 2 as a plain loop over the batches of x_T, in eager mode."""

    def __init__(self, way: Way, case: Case, dataset: Dataset, folder: Path, images: int, device: torch.device) -> None:
        self.way, self.case, self.device = way, case, device
        self.network = load_restorer(
            checkpoint(case, folder), RestorerConfig(size=case.size), case.shape, case.steps, device=device
        )
        self.degradation = build_degradation(case.blur, case.shape)
        self.blur = ways.iterated_blur(case, device) if way.iterated else None
        generator = torch.Generator().manual_seed(0)
        self.x_T = (torch.rand(images, *case.shape, generator=generator) * 2 - 1).to(device)
        self.share = 5 / case.steps if self.blur and case.steps > _LONG else 1.0
        """The share of the T steps that `run` makes."""

    @torch.no_grad()
    def run(self) -> None:
        with ways.precision(self.way, self.device):
            for x in self.x_T.split(_AT_ONCE):
                to_uint8(self._iterated(x) if self.blur else sample(self.network, self.degradation, x)).cpu()

    def _iterated(self, x: torch.Tensor) -> torch.Tensor:
        assert self.blur
        steps = self.case.steps
        visited = range(steps, 0, -1)
        if self.share < 1:
            visited = [round(steps * (i + 0.5) / 5) for i in range(5)]
        for s in visited:
            x0_hat = self.network(x, torch.full((len(x),), s, device=self.device))
            x = x - self.blur.degrade(x0_hat, s) + self.blur.degrade(x0_hat, s - 1)
        return x


class OurSampling:
    """The stage `sample` of a trial, from its checkpoint to its images."""

    share = 1.0

    def __init__(self, way: Way, case: Case, dataset: Dataset, folder: Path, images: int, device: torch.device) -> None:
        config = parse_trial(
            {
                "data": {"name": "folder", "image_size": case.pixels},
                "degradation": case.blur,
                "restorer": {"size": case.size},
                "training": {"batch_size": case.batch, **way.training},
                "protocol": {"extractor": "digits" if case.shape[0] == 1 else "cifar10", "num_images": images},
            }
        )
        self.chain = Chain(config, dataset, Store(folder / "store"), device)
        self.checkpoint = checkpoint(case, folder)
        if parts := way.for_task():
            self.chain._choose(parts["way"])

    def run(self) -> None:
        self.chain._sample(self.chain.config.sampler, self.checkpoint, lambda _: None, _AT_ONCE)


def measure_case(
    case: Case,
    chosen: Sequence[Way],
    device: torch.device,
    folder: Path,
    rounds: int,
    seconds: float,
    keep: Callable[[list[dict[str, Any]]], object] = lambda _: None,
    images: int = 8,
) -> list[dict[str, Any]]:
    """Return a row for each way, measured in turn. `keep` is called with the rows so far whenever there is more."""
    dataset = ways.random_dataset(folder, case)
    work = ways.flops(case, device, backward=False)
    rows, made = list[dict[str, Any]](), dict[str, PlainSampling | OurSampling]()

    def finish() -> None:
        for row in rows:
            if "runs" in row and "skipped" not in row:
                span = statistics.median(row["spans"] or [row["rough"] * row["runs"]])
                row["images_per_s"] = images * row["runs"] * row["share"] / span
                row["nfe_per_s"] = row["images_per_s"] * case.steps
                rate = ways.matmul_rate(row["dtype"], device)
                row["mfu"] = row["nfe_per_s"] * work / rate if rate else None
        keep(rows)

    for way in chosen:
        row: dict[str, Any] = {"case": str(case), "way": way.name, "dtype": way.dtype, "images": images, "spans": []}
        rows.append(row)
        eager = not way.plain and way.training.get("compile", "off") == "off"
        reason = way.unavailable(device)
        if reason or (eager and way.dtype != "float32"):
            row["skipped"] = reason or "eager sampling always computes in float32"
            continue

        def begin(way: Way = way, row: dict[str, Any] = row) -> None:
            kind = PlainSampling if way.plain else OurSampling
            with ways.noting(row):
                made[way.name] = kind(way, case, dataset, folder, images, device)
                row["first_s"] = ways.timed(made[way.name].run, device)
                again = ways.timed(made[way.name].run, device)
            row["rough"] = again
            row["runs"], row["share"] = max(1, math.ceil(seconds / again)), made[way.name].share
            print(f"{case}: {way.name}: first {row['first_s']:.1f} s, then {again:.2f} s", file=sys.stderr, flush=True)

        attempt(row, begin)
        finish()
    for _ in range(rounds):
        for row in rows:
            if "skipped" not in row:
                attempt(row, lambda row=row: _round(row, made[row["way"]].run, device))
        finish()
    return rows


def _round(row: dict[str, Any], run: Callable[[], None], device: torch.device) -> None:
    def several() -> None:
        for _ in range(row["runs"]):
            run()

    with ways.noting(row), ways.peak_memory(device, row):
        row["spans"].append(ways.timed(several, device))


def table(case: Case, rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a case's rows as Markdown."""

    def cells(row: Mapping[str, Any], compared: Sequence[str]) -> list[str]:
        runs = row["images"] * row["runs"] * row["share"]
        rate = f"{ways.rate_text(row['images_per_s'])} ({spread(runs, row['spans'])})"
        star = " *" if row["share"] < 1 else ""
        return [f"{rate}{star}", ways.rate_text(row["nfe_per_s"]), *compared, f"{row['first_s']:.2f}"]

    title = f"{case}: {case.describe().rpartition(', batch')[0]}, {rows[0]['images']} images"
    return markdown(title, ("images/s", "NFE/s", *COMPARED, "first sampling, s"), rows, cells)


def main() -> None:
    parser = parser_of(__doc__, "a span")
    parser.add_argument("--images", type=int, help="images of a sampling (default: 512, 128, 16 at 16, 32, 128 px)")
    options = parser.parse_args()
    device = ways.pick_device(options.device)
    print(ways.heading("Ways to sample", "sampling.py", device))
    print(f"- Median of {options.rounds} spans of at least {options.seconds:g} s (lowest to highest), in turn\n")

    def measure(case: Case, folder: Path) -> list[dict[str, Any]]:
        images = options.images or IMAGES[case.pixels]
        chosen = ways.chosen(options.ways)
        return measure_case(case, chosen, device, folder, options.rounds, options.seconds, images=images)

    print_cases(options.cases or CASES[device.type], device, options.json, measure, table)


if __name__ == "__main__":
    main()

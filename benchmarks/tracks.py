"""Time a training that keeps averages of its weights for later, and twenty average lengths that are rebuilt from them.

    uv run benchmarks/tracks.py [--steps 300] [--snapshots 20] [--rounds 5] [--dir DIR]

The training is that of the preset `digits-quick`, once as it is and once with two averages (`training.ema_stds`) and
snapshots. In each round both are trained in turn, each into a store of its own. The order changes from round to round.
Then the samplings are made in turn: twenty with rebuilt averages, and twenty with the training's own average. The
difference of the two is the time of rebuilding. It contains all that a trial does for it: finding the snapshots in the
store, the coefficients, the sums, and loading the network. The process has one thread. If other work runs on the
machine, its processor time says more than its wall time, but it does not contain the time of `fsync`.

The aim: twenty lengths cost at most 1.3 trainings and twenty samplings. The last column is the time of the training
with averages and of rebuilding, in trainings without averages.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from coldtune import presets
from coldtune.data import Dataset, prepare
from coldtune.stages.chain import SAMPLED, Chain, found_only
from coldtune.stages.trial import TrialConfig, parse_trial
from coldtune.store.checkpoints import StoreCheckpoints
from coldtune.store.provenance import git_commit, made
from coldtune.store.store import Store
from coldtune.training.loop import TrainingTask, TrainResult, train
from coldtune.training.power_averages import Tracks

STDS = (0.05, 0.1)
LENGTHS = 20
SHORTEST, LONGEST = 0.03, 0.2


CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "processor": time.process_time}


class Seconds(Counter[str]):
    """The seconds of named parts, by each clock."""

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        """Add the time of the block to a part."""
        begun = {clock: now() for clock, now in CLOCKS.items()}
        try:
            yield
        finally:
            for clock, now in CLOCKS.items():
                self[f"{name} {clock}"] += now() - begun[clock]  # type: ignore[assignment]

    def timed(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return `call`, whose time is added to a part."""

        def run(*args: Any, **keys: Any) -> Any:
            with self.of(name):
                return call(*args, **keys)

        return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300, help="steps of the training (default 300)")
    parser.add_argument("--snapshots", type=int, default=20, help="snapshots of the training (default 20)")
    parser.add_argument("--rounds", type=int, default=5, help="how often both are trained (default 5)")
    parser.add_argument("--size", default="micro", help="size of the restorer (default micro)")
    parser.add_argument("--images", type=int, default=16, help="images of a sampling (default 16)")
    parser.add_argument("--dir", type=Path, help="where the stores are written (default: a temporary folder)")
    options = parser.parse_args()
    if options.steps % options.snapshots:
        parser.error(f"--snapshots {options.snapshots}: must divide --steps {options.steps}")
    torch.set_num_threads(1)
    machine = made()
    print(f"Commit {git_commit()}; {machine['cpus']} CPUs ({machine['device']}), torch {machine['torch']}.\n")
    print(f"{options.steps:,} steps of {options.size}, {options.snapshots} snapshots, lengths {STDS}. Seconds.\n")
    titles = ["round", "training", "with averages", "ratio", "update", "saving without", "saving with", "20 samplings"]
    print(f"| {' | '.join([*titles, '20 with averages', 'rebuilding', 'in trainings'])} |")
    print("| :-- |" + " --: |" * 10, flush=True)
    with tempfile.TemporaryDirectory(prefix="tracks", dir=options.dir) as scratch:
        home = Path(scratch)
        dataset = prepare(presets.load("digits-quick")["data"], home, progress=False)
        short = argparse.Namespace(**{**vars(options), "steps": options.snapshots})
        measure(dataset, short, home / "warm", warm=True)
        rows = []
        for number in range(options.rounds):
            rows.append(measure(dataset, options, home / f"round-{number}", first=number % 2))
            for clock in CLOCKS:
                print(line(f"{number}, {clock}", rows[-1], clock), flush=True)
    middle = {name: statistics.median(row[name] for row in rows) for name in rows[0]}
    for clock in CLOCKS:
        print(line(f"median, {clock}", middle, clock))
    kept, plain = (rows[0][name] / 1e6 for name in ("kept", "plain kept"))
    print(f"\nKept in the store: {kept:.1f} MB with averages, {plain:.1f} MB without.")


def line(label: str, row: Mapping[str, float], clock: str) -> str:
    """Return a row of the table, of the seconds of one clock."""
    plain, tracks, update, plain_save, save, sampled, rebuilt = (
        row[f"{name} {clock}"] for name in ("plain", "tracks", "update", "plain save", "save", "sampled", "rebuilt")
    )
    cells = [plain, tracks, tracks / plain, update, plain_save, save, sampled, rebuilt, rebuilt - sampled]
    return f"| {label} | " + " | ".join(f"{cell:.2f}" for cell in [*cells, (tracks + rebuilt - sampled) / plain]) + " |"


def trial(options: argparse.Namespace, averages: bool, std: float | None = None, seed: int = 0) -> TrialConfig:
    """Return the trial of a training with or without averages, which samples with an average of length `std`."""
    tree = presets.load("digits-quick")
    tree["training"] |= {"steps": options.steps, "seed": seed}
    tree["restorer"] = {"size": options.size}
    tree["protocol"] |= {"num_images": options.images}
    if averages:
        tree["training"] |= {"ema_stds": list(STDS), "snapshot_every": options.steps // options.snapshots}
    if std is not None:
        tree["sampler"] |= {"ema_std": std}
    return parse_trial(tree)


def measure(dataset: Dataset, options: argparse.Namespace, home: Path, first: int = 0, warm: bool = False) -> Seconds:
    """Train both ways and sample twenty times both ways. Return the seconds of each part.

    Args:
        first: Which way begins.
        warm: Take two samplings only, so that imports and first calls are over.
    """
    row = Seconds()
    stores = {averages: Store(home / ("averages" if averages else "plain")) for averages in (False, True)}
    for averages in (False, True) if first == 0 else (True, False):
        name = "tracks" if averages else "plain"
        chain = Chain(trial(options, averages), dataset, stores[averages])
        with row.of(name):
            chain.train(trainer(row, "save" if averages else "plain save"), lambda *_: None)
        row["kept" if averages else "plain kept"] = size(stores[averages].root)
    lengths = [SHORTEST * (LONGEST / SHORTEST) ** (i / (LENGTHS - 1)) for i in range(LENGTHS)]
    for length in lengths[:2] if warm else lengths:
        for name, averages, std in (("rebuilt", True, length), ("sampled", False, None)):
            chosen = trial(options, averages, std)
            with row.of(name):
                chain = Chain(chosen, dataset, stores[averages])
                checkpoint = chain.train(found_only, lambda *_: None)
                chain.train_earlier(found_only, lambda *_: None)
                entry = chain.sample(SAMPLED, chosen.sampler, checkpoint)
            stores[averages].remove("sample", entry.key)
    return row


def trainer(row: Seconds, saving: str) -> Any:
    """Return a function that trains, and adds the seconds of saving and of updating averages to `row`."""

    def run(task: TrainingTask, checkpoints: StoreCheckpoints, report: Any) -> TrainResult:
        checkpoints.save = row.timed(saving, checkpoints.save)  # type: ignore[method-assign]
        update = Tracks.update
        Tracks.update = row.timed("update", update)  # type: ignore[method-assign]
        try:
            return train(task, checkpoints, report)
        finally:
            Tracks.update = update  # type: ignore[method-assign]

    return run


def size(folder: Path) -> int:
    """Return the bytes of the files under a folder."""
    return sum((Path(place) / name).stat().st_size for place, _, names in os.walk(folder) for name in names)


if __name__ == "__main__":
    main()

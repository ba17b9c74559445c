"""Compare the cost of 24 samplers on a single restorer if its training is found, and if each trial trains again.

    uv run benchmarks/sampler_sweep.py --steps 300 --retrain 24
    uv run benchmarks/sampler_sweep.py --steps 2000 --retrain 3

The samplers are those of search_spaces/samplers.yaml, and the restorer is that of its base.

- Found: the 24 trials run one after another on the same store, as in a study. Each also judges x_T and two baselines.
- Stock: a trial runs alone with an empty store. It trains, samples with its own sampler, judges these images, and does
  nothing else. `--retrain` says how many of the 24 settings, evenly spread, run in this way. The other settings are
  extrapolated: the mean time of a training, and the setting's own sampling and judging from the found side.

Both sides alternate in this process on a single thread. Times are the process's CPU seconds, because other load on the
machine lengthens them less than wall time. The result is a Markdown table.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from coldtune.data import Dataset, prepare
from coldtune.data.progress import show
from coldtune.stages.chain import SAMPLED, Chain
from coldtune.stages.trial import TrialConfig
from coldtune.store.provenance import git_commit, made
from coldtune.store.store import Store
from coldtune.studies.space.space import Space
from coldtune.studies.spec.build import build_spec
from coldtune.training.loop import train

ROOT = Path(__file__).resolve().parents[1]


def settings(home: Path, steps: int) -> tuple[Dataset, list[TrialConfig]]:
    spec = build_spec("benchmark", ROOT / "search_spaces" / "samplers.yaml", settings=[f"training.steps={steps}"])
    dataset = prepare(spec.base["data"], home, progress=False)
    space = Space(spec.space, spec.base, dataset.image_shape)
    return dataset, [space.resolve(point) for point in space.grid()]


def found_trial(trial: TrialConfig, dataset: Dataset, store: Store) -> tuple[float, float]:
    """Return the CPU seconds of a trial of the study, and of its training alone."""
    chain = Chain(trial, dataset, store)
    started = time.process_time()
    chain.train(train, lambda *_: None)
    trained = time.process_time() - started
    Chain(trial, dataset, store).run(train, lambda *_: None)
    return time.process_time() - started, trained


def stock_trial(trial: TrialConfig, dataset: Dataset) -> tuple[float, float]:
    """Return the CPU seconds of a trial that finds no work and computes only its own FID, and of its training alone."""
    with tempfile.TemporaryDirectory(prefix="stock-") as scratch:
        chain = Chain(trial, dataset, Store(scratch))
        started = time.process_time()
        checkpoint = chain.train(train, lambda *_: None)
        trained = time.process_time() - started
        chain.measure(SAMPLED, chain.sample(SAMPLED, trial.sampler, checkpoint))
        return time.process_time() - started, trained


def spread(count: int, of: int) -> list[int]:
    """Return the numbers of `count` settings, evenly spread from the first to the last."""
    return sorted({round(i * (of - 1) / max(count - 1, 1)) for i in range(count)})


def turns(retrained: Sequence[int], count: int) -> Iterator[tuple[bool, int]]:
    """Yield (found, setting) in the order of the runs, so that the two sides alternate."""
    for i in range(count):
        yield True, i
        if i in retrained:
            yield False, i


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, nargs="+", default=[300])
    parser.add_argument("--retrain", type=int, default=3, metavar="N", help="how many of the 24 are really retrained")
    options = parser.parse_args()
    torch.set_num_threads(1)
    machine = made()
    print(
        f"Commit {git_commit()}; {machine['cpus']} CPUs ({machine['device']}), torch {machine['torch']}, one thread.\n"
    )
    heads = ["steps", "a training", "found: 24 trials", "of them not training", "stock, a trial", "retrained",
             "stock: 24 trials", "", "ratio"]  # fmt: skip
    print("| " + " | ".join(heads) + " |\n|" + "--:|" * 7 + ":--|--:|", flush=True)
    for steps in options.steps:
        with tempfile.TemporaryDirectory(prefix="sampler-sweep-") as scratch:
            compare(steps, options.retrain, Path(scratch))


def compare(steps: int, retrain: int, home: Path) -> None:
    dataset, trials = settings(home, 10)
    stock_trial(trials[0], dataset)  # imports and other first-time work count for neither side
    dataset, trials = settings(home, steps)
    store, retrained = Store(home / "store"), spread(retrain, len(trials))
    found: dict[int, tuple[float, float]] = {}
    stock: dict[int, tuple[float, float]] = {}
    with show(True) as bars:
        advance = bars.start(f"{steps:,} steps", 1 + len(trials) / 24 + len(retrained), "trainings")
        for ours, i in turns(retrained, len(trials)):
            if ours:
                found[i] = found_trial(trials[i], dataset, store)
            else:
                stock[i] = stock_trial(trials[i], dataset)
            advance(1 / 24 + (i == 0) if ours else 1)
    trainings = [trained for _, trained in stock.values()]
    whole = sum(seconds for seconds, _ in found.values())
    each = statistics.mean(trainings)
    alone = sum(stock[i][0] if i in stock else each + seconds - trained for i, (seconds, trained) in found.items())
    mean_trial = statistics.mean(seconds for seconds, _ in stock.values())
    rest = whole - found[0][1]
    how = "measured" if len(stock) == len(trials) else "extrapolated"
    cells = [
        f"{steps:,}",
        f"{min(trainings):.1f} to {max(trainings):.1f} s",
        f"{whole:.1f} s",
        f"{rest:.1f} s",
        f"{mean_trial:.1f} s",
        f"{len(stock)} of {len(trials)}",
        f"{alone:.0f} s",
        how,
        f"{alone / whole:.1f}",
    ]
    print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()

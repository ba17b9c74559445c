"""How often do FID, FID-infinity, KID and MIND rank two models right when they see only a few images?

    uv run benchmarks/small_n_ranking.py --home HOME --data-dir DIR > tables.md
    uv run benchmarks/small_n_ranking.py --quick

FID at small N is said to prefer the over-smoothed of two models. For each dataset and degradation, restorers are
trained to two lengths, 1x and 4x, and sampled directly and by TACoS: four sets of images and four pairs. Which one of a
pair is better is what FID and KID say of it on the whole pool of restored images; then each metric ranks the pair on
random subsets of N = d/2 to 10 d. The same with features that are over-smoothed by construction. Prints the tables in
Markdown and draws the plots.

Everything is kept in HOME/small-n-ranking, a folder for each restorer: what is there is not made again, so that a run
can be stopped and gone on with. `--finished` reports on the restorers whose images are all there.
`--quick`: two restorers of 16 px digits, a minute, to see that it runs; its figures mean nothing.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from small_n_constructed import constructed_pairs
from small_n_images import Advance, Case, images, images_file, make, pool_indices
from small_n_metrics import Judged, Target, differences
from small_n_report import (
    ImageSet,
    Pair,
    all_pairs,
    bias_table,
    breakdown_table,
    coverage_table,
    flips_table,
    lead_table,
    own,
    pairs_table,
    planned_pairs,
    plot,
    read_sets,
    shares_table,
)
from small_n_values import halves, judge_case, sizes, targets

from coldtune.data import Dataset, prepare
from coldtune.metrics import build_extractor
from coldtune.metrics.extractors import extract_features

MASK = {"kind": "mask", "steps": 10, "beta": {"start": 1.0, "step": 0.5}, "center": "random", "quantize": True}
DOWNSAMPLE = {"kind": "downsample", "steps": 3, "method": "bicubic"}
NOISE = {"kind": "noise", "steps": 10, "schedule": "cosine"}


def blur(padding: str, **sigma: Any) -> dict[str, Any]:
    return {"kind": "blur", "steps": 10, "kernel_size": 11, "padding": padding, "sigma": sigma}


DEGRADATIONS: dict[str, dict[str, dict[str, Any]]] = {
    "mnist": {
        "blur": blur("circular", schedule="constant", start=3.0),
        "mask": MASK,
        "downsample": DOWNSAMPLE,
        "noise": NOISE,
    },
    "cifar10": {
        "blur": blur("reflect", schedule="linear", start=1.0, rate=0.08),
        "mask": MASK,
        "downsample": DOWNSAMPLE,
        "noise": NOISE,
    },
    "digits": {
        "blur": blur("circular", schedule="constant", start=1.0) | {"kernel_size": 7},
        "mask": MASK,
    },
}
EXTRACTORS = {name: name for name in DEGRADATIONS}
KINDS = ("blur", "mask", "downsample", "noise")
LENGTHS = {0: (200, 800), 1: (400, 1600)}  # by seed: pairs far apart, and pairs nearer to each other
POOL = 4000
GAPS = (0.1, 0.3, 1.0)  # of FIDs on the pool, relative to the smaller
SMOOTHER = ("the smoother is the worse", "the smoother is the better")
QUICK_LENGTHS, QUICK_POOL = (50, 200), 300


def cases(datasets: list[str], seeds: list[int], quick: bool = False) -> list[Case]:
    """In the order in which they are made: seed by seed, so that what is there early covers everything."""
    return [
        Case(
            dataset=dataset,
            image_size=16 if quick else 32,
            extractor=dataset,
            kind=kind,
            degradation=DEGRADATIONS[dataset][kind],
            seed=seed,
            lengths=QUICK_LENGTHS if quick else LENGTHS[seed],
            pool=QUICK_POOL if quick else POOL,
            draw="estimated" if kind == "noise" else "fixed",
        )
        for seed in seeds
        for kind in KINDS
        for dataset in datasets
        if kind in DEGRADATIONS[dataset]
    ]


@contextmanager
def counted(what: str, total: float, unit: str) -> Iterator[tuple[Advance, Callable[[str], None]]]:
    """A bar on standard error; also what adds to it, and what writes a line with rate and time left below a case."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(show_speed=True))
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console) as progress:
        bar = progress.add_task(what, total=total)
        task = progress.tasks[0]

        def log(done: str) -> None:
            rate = task.completed / task.elapsed if task.elapsed else 0.0
            left = f"{(total - task.completed) / rate:,.0f} s left" if rate else ""
            console.print(f"{done}: {task.percentage:.0f} % of {what}, {rate:,.1f} {unit}/s, {left}", soft_wrap=True)

        yield lambda done: progress.advance(bar, done), log


def make_images(todo: list[Case], datasets: dict[str, Dataset], out: Path) -> None:
    with counted("the images", sum(case.cost() for case in todo), "network evaluations") as (advance, log):
        for case in todo:
            make(case, datasets[case.dataset], out / case.name, advance)
            log(case.name)


def judge_images(todo: list[Case], datasets: dict[str, Dataset], out: Path, repeats: int) -> dict[str, Target]:
    made = targets({name: datasets[name] for name in sorted({case.dataset for case in todo})}, EXTRACTORS)
    with counted("the values", sum(len(case.sets) for case in todo), "sets") as (advance, log):
        for case in todo:
            clean = datasets[case.dataset].split("validation").images
            clean = clean[pool_indices(case, len(clean))]
            judge_case(case, clean, made[case.dataset], out / case.name, repeats, advance)
            log(case.name)
    return made


def construct(
    todo: list[Case], datasets: dict[str, Dataset], made: dict[str, Target], out: Path, repeats: int
) -> list[Pair]:
    pairs = []
    with counted("the constructed pairs", 8 * len(made), "pairs") as (advance, log):
        for case in {case.dataset: case for case in todo}.values():
            target = made[case.dataset]
            clean = target.features[pool_indices(case, len(target.features))]
            folder = out / f"{case.dataset}-constructed"
            pairs += constructed_pairs(case, clean, target, folder, repeats, advance)
            log(case.dataset)
    return pairs


def largest_difference(todo: list[Case], made: dict[str, Target], out: Path) -> float:
    """Of the metrics here from the library's, relatively: one set of each dataset, at every N."""
    worst = 0.0
    for case in {case.dataset: case for case in todo}.values():
        target, extractor = made[case.dataset], build_extractor(case.extractor)
        judged = Judged(extract_features(extractor, images(out / case.name, *case.sets[-1])), target)
        for _, n in sizes(extractor.dim, case.pool):
            worst = max(worst, *differences(judged, halves(case, n, 0)[0]).values())
    return worst


def report(planned: list[Pair], sets: list[ImageSet], constructed: list[Pair], folder: Path) -> None:
    """Print the tables and draw both plots."""
    every = all_pairs(sets)
    kinds = {"planned": planned, "of any two sets of a dataset": every, "constructed": constructed}
    for name, pairs in kinds.items():
        print(f"{len(pairs)} pairs {name}, {len(agreed(pairs))} in agreed order")
    print(f"{sum(bool(pair.certain) for pair in agreed(planned))} of the planned ones certain\n")
    tables = planned_tables(agreed(planned)) | other_tables(agreed(every)) | {"The planned pairs": pairs_table(planned)}
    tables["Constructed pairs: wrong in the mean over subsets"] = flips_table(constructed)
    for number, design in enumerate(("paired", "unpaired")):
        by_factor = breakdown_table(constructed, lambda pair: pair.kind.rpartition(", ")[2], number)
        tables[f"Constructed pairs by factor, {design}"] = by_factor
    tables["Constructed pairs, paired"] = breakdown_table(constructed, lambda pair: pair.kind)
    tables["The constructed pairs"] = pairs_table(constructed)
    tables["What a small N adds, and its rank correlation with the spread"] = bias_table(sets)
    for title, table in tables.items():
        print(f"## {title}\n\n{table}\n")
    draw(agreed(planned), constructed, folder)


def agreed(pairs: list[Pair]) -> list[Pair]:
    return [pair for pair in pairs if pair.truth]


def planned_tables(pairs: list[Pair]) -> dict[str, str]:
    return {
        "Planned pairs": shares_table(pairs),
        "Planned pairs, KID's lead in points": lead_table(pairs),
        "Planned pairs, each metric against its own order on the pool": shares_table([own(p) for p in pairs]),
        "Planned pairs by kind, paired": breakdown_table(pairs, lambda pair: pair.kind),
        "Planned pairs by dataset, paired": breakdown_table(pairs, lambda pair: pair.a.case.dataset),
        "Planned pairs by degradation, paired": breakdown_table(pairs, lambda pair: pair.a.case.kind),
        "Planned pairs by gap, paired": breakdown_table(pairs, gap_group),
        "Planned pairs by which is smoother, paired": breakdown_table(pairs, smoother_group),
        "Planned pairs by which is smoother, unpaired": breakdown_table(pairs, smoother_group, design=1),
        "Intervals of paired differences": coverage_table(pairs),
    }


def other_tables(pairs: list[Pair]) -> dict[str, str]:
    def both(pair: Pair) -> str:
        return f"{gap_group(pair)}, {smoother_group(pair)}"

    return {
        "Any two sets, paired": breakdown_table(pairs, both),
        "Any two sets, unpaired": breakdown_table(pairs, both, design=1),
        "Any two sets: wrong in the mean over subsets": flips_table(pairs),
        "Any two sets, FIDs less than 100% apart: wrong in the mean": flips_table([p for p in pairs if p.gap < 1]),
    }


def draw(planned: list[Pair], others: list[Pair], folder: Path) -> None:
    panels = {"Paired: both on the same images": (planned, 0), "Unpaired: each on its own images": (planned, 1)}
    plot(panels, folder / "small-n-ranking.png", f"How often each metric ranks two models right ({len(planned)} pairs)")
    panels = {name: (others, design) for name, (_, design) in panels.items()}
    title = f"How often an over-smoothed model is found to be the worse one ({len(others)} constructed pairs)"
    plot(panels, folder / "small-n-constructed.png", title, bars=False)


def smoother_group(pair: Pair) -> str:
    return SMOOTHER[0] if pair.smoother_is_worse else SMOOTHER[1]


def gap_group(pair: Pair) -> str:
    low = max((bound for bound in GAPS if pair.gap >= bound), default=0.0)
    high = min((bound for bound in GAPS if pair.gap < bound), default=None)
    return f"FIDs differ by {low:.0%} to {high:.0%}" if high else f"FIDs differ by {low:.0%} and more"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, help="where prepared data, images and values are kept")
    parser.add_argument("--data-dir", type=Path, help="the published files; without it they are downloaded")
    parser.add_argument("--datasets", nargs="+", default=["mnist", "cifar10"], choices=sorted(EXTRACTORS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], choices=sorted(LENGTHS))
    parser.add_argument("--repeats", type=int, default=50, help="of each N, two disjoint subsets each")
    parser.add_argument("--finished", action="store_true", help="make no images: report on those that are there")
    parser.add_argument("--quick", action="store_true", help="a minute on the digits")
    parser.add_argument("--plots", type=Path, help="folder of the plots; default: the home")
    options = parser.parse_args()
    if options.quick:
        options.datasets, options.seeds, options.repeats = ["digits"], [0], min(options.repeats, 10)
        options.home = options.home or Path(tempfile.mkdtemp(prefix="small-n-"))
    elif options.home is None:
        parser.error("--home: required, save with --quick")
    return options


def main() -> None:
    options = parse()
    torch.set_num_threads(1)
    todo, out = cases(options.datasets, options.seeds, options.quick), options.home / "small-n-ranking"
    datasets = {case.dataset: prepare(case.data, options.home, options.data_dir) for case in todo}
    if options.finished:
        todo = [case for case in todo if all(images_file(out / case.name, *which).exists() for which in case.sets)]
    else:
        make_images(todo, datasets, out)
    if not todo:
        sys.exit(f"{out}: no restorer's images are finished")
    made = judge_images(todo, datasets, out, options.repeats)
    print(f"Largest relative difference of the metrics from the library's: {largest_difference(todo, made, out):.0e}\n")
    dims = {name: target.features.shape[1] for name, target in made.items()}
    planned = [pair for case in todo for pair in planned_pairs(case, out / case.name, dims[case.dataset])]
    sets = [found for case in todo for found in read_sets(case, out / case.name, dims[case.dataset])]
    constructed = construct(todo, datasets, made, out, options.repeats)
    report(planned, sets, constructed, options.plots or options.home)


if __name__ == "__main__":
    main()

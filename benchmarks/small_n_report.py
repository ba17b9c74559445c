"""Tables and the plot of small_n_ranking.py, from the values of its cases."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from small_n_images import Case
from small_n_metrics import METRICS
from small_n_values import SIZES, WITH_INTERVALS, sizes, values_file
from torch import Tensor

NAMES = {"fid": "FID", "fid_infinity": "FID-infinity", "kid": "KID", "mind": "MIND"}
DESIGNS = ("paired", "unpaired")
RESAMPLES = 2000
FID, KID, MIND = (METRICS.index(name) for name in ("fid", "kid", "mind"))
# Okabe and Ito's colours, told apart with every kind of colour blindness, and a marker each for print.
NOTE: dict[str, Any] = {"color": "0.4", "fontsize": 8}
STYLES = {"fid": ("#D55E00", "o"), "fid_infinity": ("#E69F00", "s"), "kid": ("#0072B2", "^"), "mind": ("#009E73", "D")}


@dataclass(frozen=True, eq=False)
class ImageSet:
    """One set of images, judged.

    pool: the metrics on the whole pool (M,). values: by N / d those on the subsets (R, 2, M). spread: trace of the
    features' covariance over that of the clean images; detail: mean difference of neighbouring pixels, likewise.
    """

    case: Case
    length: int
    sampler: str
    pool: Tensor
    values: Mapping[float, Tensor]
    spread: float
    detail: float


@dataclass(frozen=True, eq=False)
class Pair:
    """Two sets of images of one dataset.

    truth: 1 where a is the better one by FID and KID on the pool, -1 where b is, 0 where the two disagree.
    shares: by size, design and metric, how often a subset gives the order of the truth (SIZES, 2, M); NaN where the
    pool is too small.
    certain: whether both paired 95 % intervals on the pool exclude 0. covered, wrong: by size of WITH_INTERVALS and
    metric (FID, KID), how often the paired interval of a subset holds the pool's difference, and how often it excludes
    0 on the wrong side. None: not computed.
    """

    a: ImageSet
    b: ImageSet
    kind: str
    certain: bool | None = None
    covered: Tensor | None = None
    wrong: Tensor | None = None

    @property
    def truth(self) -> int:
        votes = torch.sign(self.b.pool - self.a.pool)[[FID, KID]]
        return int(votes[0]) if votes[0] == votes[1] else 0

    @cached_property
    def shares(self) -> Tensor:
        return self._against(self.truth)

    def _against(self, truth: int) -> Tensor:
        shares = torch.full((len(SIZES), len(DESIGNS), len(METRICS)), torch.nan, dtype=torch.float64)
        for i, ratio in enumerate(SIZES):
            if ratio in self.a.values:
                shares[i] = right(self.a.values[ratio], self.b.values[ratio], truth)
        return shares

    @property
    def cluster(self) -> str:
        """What pairs may share beside the data: all restorers of one degradation of one dataset."""
        return f"{self.a.case.dataset} {self.a.case.kind}"

    @property
    def gap(self) -> float:
        """The difference of FID on the pool, relative to the better one's."""
        a, b = float(self.a.pool[FID]), float(self.b.pool[FID])
        return abs(a - b) / min(a, b)

    @property
    def smoother_is_worse(self) -> bool:
        """Whether the set of less spread in the features is the truly worse one: what a small N is said to miss."""
        return (self.a.spread < self.b.spread) == (self.truth < 0)


def read_sets(case: Case, folder: Path, dim: int) -> list[ImageSet]:
    found = load_file(values_file(folder))
    ratios = [ratio for ratio, _ in sizes(dim, case.pool)]
    clean = {name: float(found[name][-1]) for name in ("spread", "detail")}
    return [
        ImageSet(
            case,
            length,
            sampler,
            found["pool"][i],
            {ratio: found[f"n{int(ratio * dim)}"][i] for ratio in ratios},
            float(found["spread"][i]) / clean["spread"],
            float(found["detail"][i]) / clean["detail"],
        )
        for i, (length, sampler) in enumerate(case.sets)
    ]


def planned_pairs(case: Case, folder: Path, dim: int) -> list[Pair]:
    """The four pairs of one restorer: direct against TACoS at both lengths, 1x against 4x by both samplers."""
    sets, found, pairs = read_sets(case, folder, dim), load_file(values_file(folder)), []
    for number, (i, j) in enumerate(case.pairs):
        a, b, whole = sets[i], sets[j], found["whole"][number]
        pair = Pair(a, b, kind_of(a, b), bool(((whole[:, 0] > 0) | (whole[:, 2] < 0)).all()))
        parts = [found[f"interval{int(ratio * dim)}"][number] for ratio in WITH_INTERVALS if ratio in a.values]
        if len(parts) == len(WITH_INTERVALS):
            covered, wrong = zip(*(coverage(part, whole[:, 1], pair.truth) for part in parts), strict=True)
            pair = replace(pair, covered=torch.stack(covered), wrong=torch.stack(wrong))
        pairs.append(pair)
    return pairs


def all_pairs(sets: Sequence[ImageSet]) -> list[Pair]:
    """Every two sets of one dataset: other trainings, other degradations too."""
    return [Pair(a, b, "any") for a, b in combinations(sets, 2) if a.case.dataset == b.case.dataset]


@dataclass(frozen=True, eq=False)
class Own(Pair):
    """A pair with the shares of each metric against that metric's own order on the pool."""

    @cached_property
    def shares(self) -> Tensor:
        return torch.stack([self._against(int(sign))[..., m] for m, sign in enumerate(self._signs())], dim=-1)

    def _signs(self) -> Tensor:
        return torch.sign(self.b.pool - self.a.pool)


def own(pair: Pair) -> Pair:
    return Own(**{field.name: getattr(pair, field.name) for field in fields(pair)})


def kind_of(a: ImageSet, b: ImageSet) -> str:
    if a.sampler == b.sampler:
        return f"1x against 4x, {'TACoS' if a.sampler == 'tacos' else a.sampler}"
    return f"direct against TACoS, {'1x' if a.length == a.case.lengths[0] else '4x'}"


def right(a: Tensor, b: Tensor, truth: int) -> Tensor:
    """How often a < b, or the other way about, as `truth` says: (R, 2, M) twice -> (2, M), paired and unpaired.

    Paired: both sets on the same subset. Unpaired: a on one of the two disjoint subsets, b on the other.
    """
    orders = [(b - a) * truth > 0, (b.flip(1) - a) * truth > 0]
    return torch.stack([order.double().mean((0, 1)) for order in orders])


def coverage(intervals: Tensor, true: Tensor, truth: int) -> tuple[Tensor, Tensor]:
    """Of (C, 2, 2, 3) intervals of a - b: how often they hold `true` (2,), and how often they name the wrong one."""
    low, high = intervals[..., 0], intervals[..., 2]
    wrong = high < 0 if truth < 0 else low > 0
    return ((low <= true) & (true <= high)).double().mean((0, 1)), wrong.double().mean((0, 1))


def mean_share(pairs: Sequence[Pair]) -> Tensor:
    """(SIZES, 2, M): every pair counts the same."""
    return torch.stack([pair.shares for pair in pairs]).nanmean(0)


def bootstrap(
    pairs: Sequence[Pair], of: Callable[[Tensor], Tensor] = lambda shares: shares, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """95 % percentile bounds of the mean of `of(shares)` when clusters are drawn with replacement, pairs together."""
    names = sorted({pair.cluster for pair in pairs})
    groups = [torch.stack([of(pair.shares) for pair in pairs if pair.cluster == name]) for name in names]
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(len(groups), (RESAMPLES, len(groups)), generator=generator)
    means = torch.stack([torch.cat([groups[i] for i in row]).nanmean(0) for row in drawn.tolist()])
    low, high = torch.nanquantile(means, torch.tensor([0.025, 0.975], dtype=torch.float64), dim=0)
    return low, high


def lead_table(pairs: Sequence[Pair]) -> str:
    """By how many points KID is right more often than each other metric, with its own interval."""
    lines = [head(["KID minus", "design", *(f"N = {size_name(ratio)}" for ratio in SIZES)])]

    def lead(shares: Tensor) -> Tensor:
        return 100 * (shares[..., KID : KID + 1] - shares)

    mean, (low, high) = lead(mean_share(pairs)), bootstrap(pairs, lead)
    for m, metric in enumerate(METRICS):
        for d, design in enumerate(DESIGNS):
            cells = [f"{mean[i, d, m]:.1f} [{low[i, d, m]:.1f}, {high[i, d, m]:.1f}]" for i in range(len(SIZES))]
            if m != KID:
                lines.append(row([NAMES[metric], design, *cells]))
    return "\n".join(lines)


def size_name(ratio: float) -> str:
    return "d/2" if ratio == 0.5 else "d" if ratio == 1 else f"{ratio:g}d"


def percent(x: float | Tensor) -> str:
    return "-" if x != x else f"{100 * float(x):.0f}"


def shares_table(pairs: Sequence[Pair], bounds: bool = True) -> str:
    """Per cent right, by metric and size, paired and unpaired."""
    mean = mean_share(pairs)
    low, high = bootstrap(pairs) if bounds else (mean, mean)
    lines = [head(["metric", "design", *(f"N = {size_name(ratio)}" for ratio in SIZES)])]
    for m, metric in enumerate(METRICS):
        for d, design in enumerate(DESIGNS):
            cells = [
                f"{percent(mean[i, d, m])} [{percent(low[i, d, m])}, {percent(high[i, d, m])}]"
                if bounds
                else percent(mean[i, d, m])
                for i in range(len(SIZES))
            ]
            lines.append(row([NAMES[metric], design, *cells]))
    return "\n".join(lines)


def breakdown_table(pairs: Sequence[Pair], by: Callable[[Pair], str], design: int = 0) -> str:
    """Per cent right of the four metrics at each size, `FID / FID-infinity / KID / MIND`, a row for each group."""
    lines = [head(["pairs", "count", *(f"N = {size_name(ratio)}" for ratio in SIZES)])]
    pairs = [pair for pair in pairs if pair.truth]
    for name in sorted({by(pair) for pair in pairs}):
        group = [pair for pair in pairs if by(pair) == name]
        mean = mean_share(group)
        cells = [" / ".join(percent(x) for x in mean[i, design]) for i in range(len(SIZES))]
        lines.append(row([name, str(len(group)), *cells]))
    return "\n".join(lines)


def coverage_table(pairs: Sequence[Pair]) -> str:
    lines = [head(["metric", "N", "holds the pool's difference, %", "names the wrong one, %"])]
    parts = [(pair.covered, pair.wrong) for pair in pairs if pair.covered is not None and pair.wrong is not None]
    if not parts:
        return "None: the pool is too small."
    covered, wrong = (torch.stack(part).mean(0) for part in zip(*parts, strict=True))
    for m, name in enumerate(("FID", "KID")):
        for i, ratio in enumerate(WITH_INTERVALS):
            lines.append(row([name, size_name(ratio), f"{100 * covered[i, m]:.1f}", f"{100 * wrong[i, m]:.2f}"]))
    return "\n".join(lines)


def flips_table(pairs: Sequence[Pair]) -> str:
    """Of how many pairs the mean over all subsets has the wrong order, and for how many it favours the smoother set."""
    lines = [head(["metric", *(f"N = {size_name(ratio)}" for ratio in SIZES)])]
    for m, metric in enumerate(METRICS):
        cells = []
        for ratio in SIZES:
            found = [pair for pair in pairs if ratio in pair.a.values]
            flips = [
                pair for pair in found if float(_mean(pair.b, ratio, m) - _mean(pair.a, ratio, m)) * pair.truth < 0
            ]
            smoother = sum(pair.smoother_is_worse for pair in flips)
            cells.append(f"{len(flips)} of {len(found)} ({smoother})")
        lines.append(row([NAMES[metric], *cells]))
    return "\n".join(lines)


def bias_table(sets: Sequence[ImageSet]) -> str:
    """What few images add to a metric: mean, least to most over the sets, and its rank correlation with the spread."""
    lines = [head(["dataset", "metric", *(f"N = {size_name(ratio)}" for ratio in SIZES)])]
    for dataset in sorted({one.case.dataset for one in sets}):
        group = [one for one in sets if one.case.dataset == dataset]
        for m, metric in enumerate(METRICS):
            cells = []
            for ratio in SIZES:
                found = [one for one in group if ratio in one.values]
                bias = torch.tensor([float(_mean(one, ratio, m) - one.pool[m]) for one in found])
                spread = torch.tensor([one.spread for one in found])
                extent = (
                    f"{float(bias.mean()):.2g}, {float(bias.min()):.2g} to {float(bias.max()):.2g}" if found else "-"
                )
                cells.append(f"{extent} ({spearman(bias, spread):+.2f})" if found else "-")
            lines.append(row([dataset, NAMES[metric], *cells]))
    return "\n".join(lines)


def _mean(one: ImageSet, ratio: float, metric: int) -> Tensor:
    return one.values[ratio][..., metric].mean()


def spearman(x: Tensor, y: Tensor) -> float:
    """Rank correlation of (S,) and (S,) without ties."""
    ranks = torch.stack([x.argsort().argsort(), y.argsort().argsort()]).double()
    return float(torch.corrcoef(ranks)[0, 1])


def pairs_table(pairs: Sequence[Pair]) -> str:
    """Every pair: what the truth rests on, and how often each metric finds it at N = d and 4 d, paired."""
    columns = ["restorer", "a against b", "FID", "KID", "MIND", "spread", "detail", "better", "right at d", "at 4d"]
    lines = [head(columns)]
    for pair in pairs:
        a, b = pair.a, pair.b
        values = [f"{float(a.pool[m]):.3g} / {float(b.pool[m]):.3g}" for m in (FID, KID, MIND)]
        relative = [f"{a.spread:.2f} / {b.spread:.2f}", f"{a.detail:.2f} / {b.detail:.2f}"]
        better = {1: "a", -1: "b", 0: "no agreement"}[pair.truth] + (" ?" if pair.truth and not pair.certain else "")
        found = ["-" if not pair.truth else " / ".join(map(percent, pair.shares[i, 0])) for i in (1, 3)]
        lines.append(row([a.case.name, pair.kind, *values, *relative, better, *found]))
    return "\n".join(lines)


def head(names: Iterable[str]) -> str:
    names = list(names)
    return f"{row(names)}\n|{'|'.join([':--', *['--:'] * (len(names) - 1)])}|"


def row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def plot(panels: Mapping[str, tuple[Sequence[Pair], int]], path: Path, title: str, bars: bool = True) -> None:
    """Per cent right against N / d: a panel for each title, pairs and design (matplotlib comes with MLflow).

    bars: the 95 % interval over clusters.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    every = figure.subplots(1, len(panels), sharey=True)
    for axes, (name, (pairs, design)) in zip(every, panels.items(), strict=True):
        _lines(axes, pairs, design, bars)
        axes.set_title(name, fontsize=11)
    below = {"xytext": (8, -3), "textcoords": "offset points", "ha": "right", "va": "top"}
    every[0].annotate("chance", (SIZES[-1], 50), **below, **NOTE)
    every[0].set_ylabel("ranked right, %")
    every[-1].legend(loc="lower right", bbox_to_anchor=(1, 0.03), frameon=True, framealpha=1, edgecolor="none")
    figure.suptitle(title)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


def _lines(axes: Any, pairs: Sequence[Pair], design: int, bars: bool) -> None:
    mean, (low, high) = 100 * mean_share(pairs)[:, design], (100 * bound[:, design] for bound in bootstrap(pairs))
    for m, metric in enumerate(METRICS):
        colour, marker = STYLES[metric]
        x = [ratio * 1.04 ** (m - 1.5) for ratio in SIZES]  # side by side, so that the bars can be read
        reach = torch.stack([mean[:, m] - low[:, m], high[:, m] - mean[:, m]]).clamp(min=0) if bars else None
        axes.errorbar(
            x, mean[:, m], yerr=reach, color=colour, marker=marker, label=NAMES[metric], capsize=2, elinewidth=0.8
        )
    axes.axhline(50, color="0.6", linestyle=":", linewidth=1)
    axes.axvline(4, color="0.88", linewidth=6, zorder=0)
    axes.annotate("4 d", (4, 0), xycoords=("data", "axes fraction"), xytext=(6, 4), textcoords="offset points", **NOTE)
    axes.set_xscale("log", base=2)
    axes.set_xticks(SIZES, ["½", "1", "2", "4", "10"])
    axes.minorticks_off()
    axes.margins(y=0.08)
    axes.set_xlabel("N / d (images judged, by length of a feature vector)")
    axes.grid(axis="y", color="0.9")
    axes.spines[["top", "right"]].set_visible(False)

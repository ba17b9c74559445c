"""Compare the importance of keys with known shares: fANOVA with Sobol's indices, PED-ANOVA with the known order.

    uv run benchmarks/importance.py

The functions have closed forms: an additive function, Sobol's g-function, Ishigami's function, a function of choices,
Friedman's function, and a function of steps. Studies are random samples and searches by TPE, with and without noise.
Nothing is trained.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from scipy import stats

from coldtune.config import parse
from coldtune.store.provenance import git_commit
from coldtune.studies.insight.chance import find_chance
from coldtune.studies.insight.estimate import Estimate
from coldtune.studies.insight.fanova import evaluate_fanova
from coldtune.studies.insight.ped_anova import evaluate_ped_anova
from coldtune.studies.insight.sample import Sample, quiet
from coldtune.studies.insight.study_importance import LEAST_R2
from coldtune.studies.search.config import SearchConfig

Array = NDArray[np.float64]
SETTINGS, NOISES = 60, (0.0, 0.5)  # noise: its sd in units of the function's sd
SAMPLERS = {"uniform": "random", "TPE": "tpe"}
STABLE = 0.95  # of the resamples


@dataclass(frozen=True)
class Function:
    """A function of keys that are drawn uniformly.

    Attributes:
        value: The function of points, shape (keys,).
        shares: Sobol's first-order indices.
        totals: Sobol's total indices. A key with the total index 0 has no effect.
        variance: The variance of the function.
        keys: The distributions of the keys. If it is empty, every key is uniform on [0, 1].
    """

    name: str
    value: Callable[[Array], float]
    shares: Array
    totals: Array
    variance: float
    keys: tuple[BaseDistribution, ...] = ()

    def distributions(self) -> dict[str, BaseDistribution]:
        keys = self.keys or tuple(FloatDistribution(0, 1) for _ in self.shares)
        return {f"x{i}": each for i, each in enumerate(keys)}


def additive() -> Function:
    """sum c_i x_i. The variance of c x is c^2 / 12."""
    weights = np.array([4.0, 2.0, 1.0, 0.5, 0.0])
    variances = weights**2 / 12
    shares = variances / variances.sum()
    return Function("additive", lambda x: float(weights @ x), shares, shares, float(variances.sum()))


def g_function() -> Function:
    """prod (|4 x_i - 2| + a_i) / (1 + a_i), with V_i = 1 / (3 (1 + a_i)^2) and V = prod (1 + V_i) - 1 (Sobol 1993).

    The total index of a key is V_i times prod (1 + V_j) of the others, divided by V. The fifth key has no effect.
    """
    a = np.array([0.0, 1.0, 4.5, 99.0])
    single = 1 / (3 * (1 + a) ** 2)
    product = float(np.prod(1 + single))
    totals = single * product / (1 + single)

    def value(x: Array) -> float:
        return float(np.prod((np.abs(4 * x[:4] - 2) + a) / (1 + a)))

    return Function(
        "g-function", value, np.append(single, 0) / (product - 1), np.append(totals, 0) / (product - 1), product - 1
    )


def ishigami() -> Function:
    """sin z1 + 7 sin^2 z2 + 0.1 z3^4 sin z1 for z uniform on [-pi, pi] (Ishigami and Homma 1990), and a null key."""
    a, b, pi = 7.0, 0.1, np.pi
    first, second, both = 0.5 * (1 + b * pi**4 / 5) ** 2, a**2 / 8, b**2 * pi**8 * (1 / 18 - 1 / 50)
    whole = first + second + both

    def value(x: Array) -> float:
        z = 2 * pi * x - pi
        return float(np.sin(z[0]) + a * np.sin(z[1]) ** 2 + b * z[2] ** 4 * np.sin(z[0]))

    shares, totals = np.array([first, second, 0.0, 0.0]), np.array([first + both, second, both, 0.0])
    return Function("Ishigami", value, shares / whole, totals / whole, whole)


def choices() -> Function:
    """e(c) + 0.3 (k - 2)^2 + s(c) (x - 0.5) for a choice c of four, k = 0..4 and x on [0, 1], and two null keys.

    One null key is a choice of three. The variances are sums over the values of c and k.
    """
    effects, slopes = np.array([0.0, 1.0, 2.0, 1.0]), np.array([2.0, 2.0, -1.0, -1.0])
    c, k = effects.var(), (0.3 * (np.arange(5) - 2.0) ** 2).var()
    x, x_total = slopes.mean() ** 2 / 12, (slopes**2).mean() / 12
    whole = c + k + x_total

    def value(z: Array) -> float:
        return float(effects[int(z[0])] + 0.3 * (z[1] - 2) ** 2 + slopes[int(z[0])] * (z[2] - 0.5))

    keys = (
        CategoricalDistribution((0, 1, 2, 3)), IntDistribution(0, 4), FloatDistribution(0, 1),
        CategoricalDistribution((0, 1, 2)), FloatDistribution(0, 1),
    )  # fmt: skip
    shares, totals = np.array([c, k, x, 0.0, 0.0]), np.array([c + x_total - x, k, x_total, 0.0, 0.0])
    return Function("choices", value, shares / whole, totals / whole, float(whole), keys)


def friedman() -> Function:
    """10 sin(pi x0 x1) + 20 (x2 - 0.5)^2 + 10 x3 + 5 x4 (Friedman 1991), and a null key.

    The variances of the first term are sums over 2000 x 2000 points.
    """
    u = (np.arange(2000) + 0.5) / 2000
    rows = [10 * np.sin(np.pi * each * u) for each in u]
    means = np.array([row.mean() for row in rows])
    alone, both = float(means.var()), float(np.mean([(row**2).mean() for row in rows]) - means.mean() ** 2)
    third, fourth, fifth = 400 * (1 / 80 - 1 / 144), 100 / 12, 25 / 12
    whole = both + third + fourth + fifth

    def value(x: Array) -> float:
        return float(10 * np.sin(np.pi * x[0] * x[1]) + 20 * (x[2] - 0.5) ** 2 + 10 * x[3] + 5 * x[4])

    shares = np.array([alone, alone, third, fourth, fifth, 0.0]) / whole
    totals = np.array([both - alone, both - alone, third, fourth, fifth, 0.0]) / whole
    return Function("Friedman", value, shares, totals, whole)


def steps() -> Function:
    """2 [x0 > 0.7] + 2 c x for a choice c = 0, 1, 2 and x on [0, 1], and a null key."""
    jump, c, x = 4 * 0.7 * 0.3, 2 / 3, 1 / 3
    both = 4 * (5 / 3) * (1 / 3) - 1 - c - x
    whole = jump + c + x + both

    def value(z: Array) -> float:
        return float(2 * (z[0] > 0.7) + 2 * z[1] * z[2])

    keys = (
        FloatDistribution(0, 1),
        CategoricalDistribution((0, 1, 2)),
        FloatDistribution(0, 1),
        FloatDistribution(0, 1),
    )
    shares, totals = np.array([jump, c, x, 0.0]), np.array([jump, c + both, x + both, 0.0])
    return Function("steps", value, shares / whole, totals / whole, whole, keys)


def constant() -> Function:
    """No key matters. All differences between settings are noise."""
    return Function("noise alone", lambda _: 0.0, np.zeros(4), np.zeros(4), 1.0)


def draw(function: Function, sampler: str, noise: float, seed: int) -> Sample:
    """Return a study of a function, as the samplers of coldtune choose its points."""
    keys = function.distributions()
    sd = noise * function.variance**0.5
    return ask(keys, lambda point: function.value(np.array([point[key] for key in keys])), sampler, sd, seed)


def draw_conditional(sampler: str, noise: float, seed: int) -> Sample:
    """Return a study of 8 (x0 - 0.5)^2 + c + 2 u, in which u exists if the choice c is 1.

    The null keys are x1, and v, which exists if c is 0.
    """
    keys: dict[str, BaseDistribution] = {
        "c": CategoricalDistribution((0, 1)),
        **{name: FloatDistribution(0, 1) for name in ("x0", "x1", "u", "v")},
    }

    def value(point: dict[str, float]) -> float:
        return 8 * (point["x0"] - 0.5) ** 2 + (point["c"] + 2 * point.get("u", 0.0))

    return ask(keys, value, sampler, noise, seed, when={"u": 1, "v": 0})


def ask(
    keys: dict[str, BaseDistribution],
    value: Callable[[dict[str, float]], float],
    sampler: str,
    sd: float,
    seed: int,
    when: dict[str, int] | None = None,
) -> Sample:
    rng = np.random.default_rng(seed)
    config = parse(SearchConfig, {"algorithm": SAMPLERS[sampler]})
    with quiet():
        study = optuna.create_study()
        for number in range(SETTINGS):
            study.sampler = config.build_sampler(seed, number)
            trial = study.ask()
            for name, distribution in keys.items():
                if when and name in when and trial.params["c"] != when[name]:
                    continue
                if isinstance(distribution, CategoricalDistribution):
                    trial.suggest_categorical(name, distribution.choices)
                elif isinstance(distribution, IntDistribution):
                    trial.suggest_int(name, distribution.low, distribution.high)
                else:
                    trial.suggest_float(name, 0, 1)
            study.tell(trial, value(trial.params) + sd * rng.normal())
        trials = study.trials
    points = tuple(trial.params for trial in trials)
    return Sample(keys, points, tuple(((trial.values[0],),) for trial in trials), ("minimize",))


def is_covered(estimate: Estimate, function: Function) -> list[bool]:
    intervals = [estimate.interval((f"x{i}",)) for i in range(len(function.shares))]
    return [
        low - 1e-9 <= share <= high + 1e-9 for (_, low, high), share in zip(intervals, function.shares, strict=True)
    ]


def fanova_rows(
    function: Function, studies: int, seed: int, samplers: Sequence[str], noises: Sequence[float]
) -> Iterator[list[str]]:
    for sampler in samplers:
        for noise in noises:
            estimates = [evaluate_fanova(draw(function, sampler, noise, seed + number)) for number in range(studies)]
            kept = [each for each in estimates if each.r2 is not None and each.r2 >= LEAST_R2]
            yield [
                function.name, sampler, f"{noise:g}", f"{len(estimates) - len(kept)} of {studies}",
                *(_describe(kept, function) if kept else ["", "", "", "", "", ""]),
            ]  # fmt: skip


def _describe(kept: list[Estimate], function: Function) -> list[str]:
    keys = [f"x{i}" for i in range(len(function.shares))]
    shares = np.array([[each.shares[key] for key in keys] for each in kept])
    intervals = np.array([[each.interval((key,))[1:] for key in keys] for each in kept])
    covered = np.mean([is_covered(each, function) for each in kept])
    alone = np.mean([is_covered(replace(each, r2=None), function) for each in kept])
    right = shares.argmax(axis=1) == function.shares.argmax()
    held = np.array([each.rank_held()[each.ranked()[0]] >= STABLE for each in kept])
    return [
        f"{100 * covered:.0f} %", f"{100 * alone:.0f} %", f"{(intervals[..., 1] - intervals[..., 0]).mean():.2f}",
        f"{np.abs(shares - function.shares).mean():.3f}", f"{right.sum()} of {len(kept)}",
        f"{(right & held).sum()} of {held.sum()}",
    ]  # fmt: skip


def chance_rows(
    function: Function, studies: int, seed: int, samplers: Sequence[str], noises: Sequence[float]
) -> Iterator[list[str]]:
    """Yield how often the test of `chance.py` calls keys without effect more than chance, and keys that act."""
    names = list(function.distributions())
    null = function.totals < 1e-9
    for sampler in samplers:
        for noise in noises:
            found = [find_chance(draw(function, sampler, noise, seed + number), seed) for number in range(studies)]
            above = np.array([[not each[name] for name in names] for each in found])
            called = int(above[:, null].sum())
            low, high = stats.binomtest(called, int(studies * null.sum())).proportion_ci(method="exact")
            acting = sorted(np.flatnonzero(~null), key=lambda i: -function.totals[i])
            power = ", ".join(f"{function.totals[i]:.3f}: {100 * above[:, i].mean():.0f} %" for i in acting)
            yield [
                function.name, sampler, f"{noise:g}", f"{called} of {int(studies * null.sum())}",
                f"{100 * low:.0f} to {100 * high:.0f} %", power,
            ]  # fmt: skip


def refused_rows(studies: int, seed: int, samplers: Sequence[str]) -> Iterator[list[str]]:
    """Yield how often each evaluator refuses a study in which no key matters."""
    for sampler in samplers:
        samples = [draw(constant(), sampler, 1.0, seed + number) for number in range(studies)]
        r2 = [evaluate_fanova(sample).r2 or 0.0 for sample in samples]
        null = [list(evaluate_ped_anova(sample).by_chance.values()) for sample in samples]
        refused = np.mean([value < LEAST_R2 for value in r2])
        yield [
            sampler, f"{100 * refused:.0f} %", f"{np.median(r2):.2f} ({max(r2):.2f})",
            f"{100 * np.mean([all(each) for each in null]):.0f} %", f"{100 * (1 - np.mean(null)):.0f} %",
        ]  # fmt: skip


def ped_anova_rows(studies: int, seed: int, samplers: Sequence[str]) -> Iterator[list[str]]:
    """Yield how often the most important key is first, the rank correlation, and how often null keys are important.

    A larger weight of the additive function matters more for reaching the top, too. In the conditional study, only the
    first key has a known place, because u is missing in the best settings.
    """
    function = additive()
    truth = {f"x{i}": share for i, share in enumerate(function.shares)}
    for sampler in samplers:
        made = [draw(function, sampler, 0.5, seed + number) for number in range(studies)]
        yield [
            "additive",
            sampler,
            *_describe_ranks([evaluate_ped_anova(each) for each in made], ("x0",), ("x4",), truth),
        ]
    for sampler in samplers:
        made = [draw_conditional(sampler, 0.5, seed + number) for number in range(studies)]
        yield [
            "conditional",
            sampler,
            *_describe_ranks([evaluate_ped_anova(each) for each in made], ("x0", "c"), ("x1", "v")),
        ]


def _describe_ranks(
    found: list[Estimate], first: tuple[str, ...], null: tuple[str, ...], truth: dict[str, float] | None = None
) -> list[str]:
    kept = [each for each in found if not all(each.by_chance.values())]
    if not kept:
        return [f"{len(found)} of {len(found)}", "", "", f"0 of {len(found) * len(null)}"]
    right = np.mean([max(each.shares, key=lambda key: each.shares[key]) in first for each in kept])
    called = [not each.by_chance[key] for each in found for key in null]  # a refused study calls no key important
    tau = ""
    if truth is not None:
        taus = [stats.kendalltau([each.shares[key] for key in truth], list(truth.values())).statistic for each in kept]
        tau = f"{np.mean(taus):.2f}"
    refused = f"{len(found) - len(kept)} of {len(found)}"
    return [refused, f"{100 * right:.0f} %", tau, f"{sum(called)} of {len(called)}"]


def show(title: str, heads: list[str], rows: Iterator[list[str]]) -> None:
    print(f"\n## {title}\n\n| {' | '.join(heads)} |\n|{':--|' * len(heads)}", flush=True)
    for row in rows:
        print(f"| {' | '.join(row)} |", flush=True)


def main() -> None:
    made = (additive(), g_function(), ishigami(), choices(), friedman(), steps())
    functions = {function.name: function for function in made}
    parts = ("fanova", "chance", "null", "ped-anova")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=20, help="studies of each row (default 20)")
    parser.add_argument("--seed", type=int, default=1000, help="seed of the first study (default 1000)")
    parser.add_argument("--samplers", choices=SAMPLERS, nargs="+", default=SAMPLERS, help="default all")
    parser.add_argument("--noises", type=float, nargs="+", default=NOISES, help="default 0 and 0.5")
    parser.add_argument("--functions", choices=functions, nargs="+", default=functions, help="default all")
    parser.add_argument("--only", choices=parts, nargs="+", default=parts, help="the parts to run (default all)")
    options = parser.parse_args()
    began, about = time.time(), (options.studies, options.seed)
    print(f"commit {git_commit()}, {SETTINGS} settings a study, {options.studies} studies a row, seed {options.seed}")
    heads = [
        "function", "sampler", "noise", "refused", "covered", "by resamples alone", "width", "error of shares",
        "first key right", "first key right, if it is first in 95 % of resamples",
    ]  # fmt: skip
    for name in options.functions:
        if "fanova" in options.only:
            show(f"fANOVA, {name}", heads, fanova_rows(functions[name], *about, options.samplers, options.noises))
    heads = ["function", "sampler", "noise", "null keys above chance", "interval", "keys that act above chance"]
    for name in options.functions:
        if "chance" in options.only:
            show(f"Chance, {name}", heads, chance_rows(functions[name], *about, options.samplers, options.noises))
    heads = ["sampler", "fANOVA refused", "R2: median (largest)", "PED-ANOVA refused", "PED-ANOVA: key above chance"]
    if "null" in options.only:
        show("No key matters", heads, refused_rows(*about, options.samplers))
    heads = ["study", "sampler", "refused", "most important key first", "rank correlation", "null key above chance"]
    if "ped-anova" in options.only:
        show("PED-ANOVA", heads, ped_anova_rows(*about, options.samplers))
    print(f"\n{time.time() - began:.0f} s")


if __name__ == "__main__":
    main()

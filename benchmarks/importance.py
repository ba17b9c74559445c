"""Compare the importance of keys with known shares: fANOVA with Sobol's indices, PED-ANOVA with the known order.

    uv run benchmarks/importance.py

The functions have closed forms: an additive function, Sobol's g-function and Ishigami's function. Studies are random
samples and searches by TPE, with and without noise. Nothing is trained.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from scipy import stats

from coldtune.config import parse
from coldtune.store.provenance import git_commit
from coldtune.studies.insight.estimate import Estimate
from coldtune.studies.insight.fanova import evaluate_fanova
from coldtune.studies.insight.ped_anova import evaluate_ped_anova
from coldtune.studies.insight.sample import Sample, quiet
from coldtune.studies.insight.study_importance import LEAST_R2
from coldtune.studies.search.config import SearchConfig

Array = NDArray[np.float64]
SETTINGS, NOISES = 60, (0.0, 0.5)  # noise: its sd in units of the function's sd
SAMPLERS = {"uniform": "random", "TPE": "tpe"}


@dataclass(frozen=True)
class Function:
    """A function of keys that are uniform on [0, 1].

    Attributes:
        value: The function of points, shape (keys,).
        shares: Sobol's first-order indices.
        variance: The variance of the function.
    """

    name: str
    value: Callable[[Array], float]
    shares: Array
    variance: float


def additive() -> Function:
    """sum c_i x_i. The variance of c x is c^2 / 12."""
    weights = np.array([4.0, 2.0, 1.0, 0.5, 0.0])
    variances = weights**2 / 12
    return Function("additive", lambda x: float(weights @ x), variances / variances.sum(), float(variances.sum()))


def g_function() -> Function:
    """prod (|4 x_i - 2| + a_i) / (1 + a_i), with V_i = 1 / (3 (1 + a_i)^2) and V = prod (1 + V_i) - 1 (Sobol 1993)."""
    a = np.array([0.0, 1.0, 4.5, 99.0])
    single = 1 / (3 * (1 + a) ** 2)
    whole = float(np.prod(1 + single) - 1)
    return Function("g-function", lambda x: float(np.prod((np.abs(4 * x - 2) + a) / (1 + a))), single / whole, whole)


def ishigami() -> Function:
    """sin z1 + 7 sin^2 z2 + 0.1 z3^4 sin z1 for z uniform on [-pi, pi] (Ishigami and Homma 1990), and a null key."""
    a, b, pi = 7.0, 0.1, np.pi
    first, second = 0.5 * (1 + b * pi**4 / 5) ** 2, a**2 / 8
    whole = first + second + b**2 * pi**8 * (1 / 18 - 1 / 50)

    def value(x: Array) -> float:
        z = 2 * pi * x - pi
        return float(np.sin(z[0]) + a * np.sin(z[1]) ** 2 + b * z[2] ** 4 * np.sin(z[0]))

    return Function("Ishigami", value, np.array([first, second, 0.0, 0.0]) / whole, whole)


def constant() -> Function:
    """No key matters. All differences between settings are noise."""
    return Function("noise alone", lambda _: 0.0, np.zeros(4), 1.0)


def draw(function: Function, sampler: str, noise: float, seed: int) -> Sample:
    """Return a study of a function, as the samplers of coldtune choose its points."""
    keys: dict[str, BaseDistribution] = {f"x{i}": FloatDistribution(0, 1) for i in range(len(function.shares))}
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
    first = np.mean(shares.argmax(axis=1) == function.shares.argmax())
    null = function.shares == 0
    called = [not each.by_chance[key] for each in kept for key, is_null in zip(keys, null, strict=True) if is_null]
    return [
        f"{100 * covered:.0f} %", f"{100 * alone:.0f} %", f"{(intervals[..., 1] - intervals[..., 0]).mean():.2f}",
        f"{np.abs(shares - function.shares).mean():.3f}", f"{100 * first:.0f} %",
        f"{100 * np.mean(called):.0f} %" if called else "no null key",
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


def ped_anova_rows(studies: int, seed: int) -> Iterator[list[str]]:
    """Yield how often the most important key is first, the rank correlation, and how often null keys are important.

    A larger weight of the additive function matters more for reaching the top, too. In the conditional study, only the
    first key has a known place, because u is missing in the best settings.
    """
    function = additive()
    truth = {f"x{i}": share for i, share in enumerate(function.shares)}
    for sampler in SAMPLERS:
        made = [draw(function, sampler, 0.5, seed + number) for number in range(studies)]
        yield [
            "additive",
            sampler,
            *_describe_ranks([evaluate_ped_anova(each) for each in made], ("x0",), ("x4",), truth),
        ]
    for sampler in SAMPLERS:
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
        return [f"{len(found)} of {len(found)}", "", "", ""]
    right = np.mean([max(each.shares, key=lambda key: each.shares[key]) in first for each in kept])
    called = np.mean([not each.by_chance[key] for each in kept for key in null])
    tau = ""
    if truth is not None:
        taus = [stats.kendalltau([each.shares[key] for key in truth], list(truth.values())).statistic for each in kept]
        tau = f"{np.mean(taus):.2f}"
    refused = f"{len(found) - len(kept)} of {len(found)}"
    return [refused, f"{100 * right:.0f} %", tau, f"{100 * called:.0f} %"]


def show(title: str, heads: list[str], rows: Iterator[list[str]]) -> None:
    print(f"\n## {title}\n\n| {' | '.join(heads)} |\n|{':--|' * len(heads)}", flush=True)
    for row in rows:
        print(f"| {' | '.join(row)} |", flush=True)


def main() -> None:
    functions = {function.name: function for function in (additive(), g_function(), ishigami())}
    parts = (*functions, "null", "ped-anova")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=10, help="studies of each row (default 10)")
    parser.add_argument("--seed", type=int, default=1000, help="seed of the first study (default 1000)")
    parser.add_argument("--samplers", choices=SAMPLERS, nargs="+", default=SAMPLERS, help="of fANOVA (default all)")
    parser.add_argument("--noises", type=float, nargs="+", default=NOISES, help="of fANOVA (default 0 and 0.5)")
    parser.add_argument("--only", choices=parts, nargs="+", default=parts, help="the parts to run (default all)")
    options = parser.parse_args()
    began, about = time.time(), (options.studies, options.seed)
    print(f"commit {git_commit()}, {SETTINGS} settings a study, {options.studies} studies a row, seed {options.seed}")
    heads = [
        "function", "sampler", "noise", "refused", "covered", "by resamples alone", "width", "error of shares",
        "most important key first", "null key above chance",
    ]  # fmt: skip
    for name, function in functions.items():
        if name in options.only:
            show(f"fANOVA, {name}", heads, fanova_rows(function, *about, options.samplers, options.noises))
    heads = ["sampler", "fANOVA refused", "R2: median (largest)", "PED-ANOVA refused", "PED-ANOVA: key above chance"]
    if "null" in options.only:
        show("No key matters", heads, refused_rows(*about, options.samplers))
    heads = ["study", "sampler", "refused", "most important key first", "rank correlation", "null key above chance"]
    if "ped-anova" in options.only:
        show("PED-ANOVA", heads, ped_anova_rows(*about))
    print(f"\n{time.time() - began:.0f} s")


if __name__ == "__main__":
    main()

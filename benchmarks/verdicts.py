"""Simulate studies without any true difference, and count how often a verdict says "better" or "worse".

    uv run benchmarks/verdicts.py --home runs/verdicts

The script trains twelve networks of `digits-quick` (seeds 0 to 11) if the home does not hold them. Studies are
simulated from a model with crossed variances, and by resampling the real networks and images. All studies of a cell are
computed at once. `coldtune.verdicts` judges the first studies of each cell too, and must come to the same verdicts.
"""

from __future__ import annotations

import argparse
import inspect
import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri, stdtrit
from scipy.stats import dunnett, ttest_ind

from coldtune import presets
from coldtune.data import prepare
from coldtune.metrics import Judgement, compare
from coldtune.stages.chain import Chain
from coldtune.stages.trial import parse_trial
from coldtune.store.provenance import git_commit
from coldtune.store.store import Store
from coldtune.training.device import use_threads
from coldtune.training.loop import train
from coldtune.verdicts import Family, Panel, Plan, Race, Setting, Standing, Training
from coldtune.verdicts.estimate import cautious_below
from coldtune.verdicts.families import ALPHA, judge_panel
from coldtune.verdicts.levels import LEAST, nominal_levels, per_comparison

Array = NDArray[np.float64]
SEEDS, STUDIES, CHECKED = range(12), 2000, 10
SETTINGS, REPLICATES = (2, 5, 10), (2, 3, 5, 10)
_SEED = 0  # of `--seed`


@dataclass(frozen=True)
class Studies:
    """Simulated studies: values (R, S, k) of k trainings of S settings, and the covariance of their image errors.

    `covariance` is (R, S, k, S, k).
    """

    values: Array
    covariance: Array
    num_images: int

    def at(self, look: int) -> tuple[Array, Array, Array]:
        """Return means (R, S), variances of means (R, S) and image variances of differences (R, S, S) at a look."""
        values, covariance = self.values[:, :, :look], self.covariance[:, :, :look, :, :look]
        between = covariance.mean((2, 4))
        common = np.einsum("rss->rs", between)
        own = (np.einsum("rsksk->rs", covariance) / look - common) / (look - 1)
        own = np.maximum(own, 0)
        images = common[:, :, None] + common[:, None] - 2 * between - own[:, :, None] - own[:, None]
        return values.mean(2), values.var(2, ddof=1) / look, np.maximum(images, 0)

    def differences(self, look: int, i: Array, j: Array, alpha: float) -> tuple[Array, Array]:
        """Return the differences (R, pairs) of settings i and j with their half widths, as `Difference` has them."""
        means, variances, images = self.at(look)
        a, b, of_images = variances[:, i], variances[:, j], images[:, i, j]
        total = a + b + of_images
        images_df, q = self.num_images - 1, 1 - alpha / 2
        with np.errstate(invalid="ignore", divide="ignore"):
            inverse = ((a / total) ** 2 + (b / total) ** 2) / (look - 1) + (of_images / total) ** 2 / images_df
            half = stdtrit(1 / inverse, q) * np.sqrt(total)
        if alpha < cautious_below(look) or look == 2:
            banerjee = np.sqrt(stdtrit(look - 1, q) ** 2 * (a + b) + stdtrit(images_df, q) ** 2 * of_images)
            half = banerjee if look == 2 else np.sqrt(half * banerjee)
        return means[:, i] - means[:, j], np.where(total > 0, half, 0.0)


Source = Callable[[np.random.Generator, int, int, int], Studies]


def crossed(spread: float = 1.0, images: float = 0.3, own: float = 0.3, skewed: bool = False) -> Source:
    """Return a model: the luck of training, an image effect of each setting, and one of each network.

    Args:
        spread: The sd between trainings grows from 1 to `spread` from the first setting (the base) to the last.
        images: The sd of a setting's image effect on its value. It is the same for all trainings of the setting.
        own: The sd of a network's own image effect.
        skewed: Take the luck of training from an exponential distribution instead of a normal one.
    """

    def draw(rng: np.random.Generator, studies: int, settings: int, replicates: int) -> Studies:
        n = 40
        of_setting = rng.standard_normal((studies, settings, 1, n)) * images * math.sqrt(n)
        influences = of_setting + rng.standard_normal((studies, settings, replicates, n)) * own * math.sqrt(n)
        luck = rng.standard_normal((studies, settings, replicates))
        if skewed:
            luck = rng.exponential(size=luck.shape) - 1
        luck = luck * np.geomspace(1, spread, settings)[None, :, None]
        values = luck + influences.mean(-1)
        rows = (influences - influences.mean(-1, keepdims=True)).reshape(studies, -1, n)
        covariance = rows @ rows.transpose(0, 2, 1) / (n * (n - 1))
        return Studies(values, covariance.reshape(studies, settings, replicates, settings, replicates), n)

    return draw


def resampled(judged: dict[str, list[Judgement]], metric: str, sets: tuple[str, ...]) -> Source:
    """Return studies of real networks: each training is one of the twelve, drawn anew, and so are the images.

    Setting number s takes its networks from `sets[s % len(sets)]`. Each set's mean over the networks is moved to 0, so
    all settings are equal, although their variances may not be.
    """
    trainings = {
        name: [Training.of(judgement, metric, seed, str(seed)) for seed, judgement in enumerate(judged[name])]
        for name in dict.fromkeys(sets)
    }
    pools = list(trainings)
    centred = np.concatenate([_centred([t.value for t in trainings[name]]) for name in pools])
    influences = np.concatenate([[t.influences.numpy() for t in trainings[name]] for name in pools])
    given = [t.reference_influences for name in pools for t in trainings[name]]
    reference = None if given[0] is None else np.stack([rows.numpy() for rows in given if rows is not None])

    def draw(rng: np.random.Generator, studies: int, settings: int, replicates: int) -> Studies:
        n = influences.shape[1]
        shift, gram = _bootstrapped(rng, influences, studies)
        if reference is not None:
            more = _bootstrapped(rng, reference, studies)
            shift, gram = shift + more[0], gram + more[1]
        pool = np.array([pools.index(sets[s % len(sets)]) for s in range(settings)])
        chosen = rng.integers(0, len(SEEDS), (studies, settings, replicates)) + len(SEEDS) * pool[None, :, None]
        values = (centred + shift)[np.arange(studies)[:, None, None], chosen]
        flat = chosen.reshape(studies, -1)
        covariance = gram[np.arange(studies)[:, None, None], flat[:, :, None], flat[:, None, :]]
        return Studies(values, covariance.reshape(studies, settings, replicates, settings, replicates), n)

    return draw


def _centred(values: list[float]) -> Array:
    return np.array(values) - np.mean(values)


def _bootstrapped(rng: np.random.Generator, influences: Array, studies: int) -> tuple[Array, Array]:
    """Draw the images anew. Return the shift of each value (R, P), and the covariance (R, P, P) estimated there."""
    count, n = influences.shape
    weights = rng.multinomial(n, np.full(n, 1 / n), studies).astype(np.float64)
    shift = weights @ influences.T / n
    products = (influences[:, None] * influences[None]).reshape(count * count, n)
    second = (weights @ products.T).reshape(studies, count, count)
    return shift, (second - n * shift[:, :, None] * shift[:, None]) / (n * (n - 1))


# --- verdicts of all studies at once ---------------------------------------------------------------------------------


def decided_against_base(studies: Studies, plan: Plan | None) -> tuple[Array, Array]:
    """Return which settings (R, S - 1) are decided, and the number of trainings of each study."""
    count, settings, replicates = studies.values.shape
    i, j = np.arange(1, settings), np.zeros(settings - 1, int)
    level = per_comparison(ALPHA, settings - 1)
    decided = np.zeros((count, settings - 1), bool)
    used = np.zeros((count, settings - 1), int)
    for look in plan.looks if plan else (replicates,):
        if look > replicates:
            break
        used[~decided] = look
        if look >= LEAST:
            value, half = studies.differences(look, i, j, plan.alpha_at(look, level) if plan else level)
            decided |= np.abs(value) > half
    return decided, used.sum(1) + used.max(1)


def decided_against_best(studies: Studies, plan: Plan | None) -> tuple[Array, Array]:
    """Return which settings (R, S) are worse than the best setting, and the number of trainings of each study."""
    count, settings, replicates = studies.values.shape
    i, j = (np.array(x) for x in zip(*itertools.combinations(range(settings), 2), strict=True))
    level = per_comparison(ALPHA, len(i))
    live = np.ones((count, settings), bool)
    used = np.zeros((count, settings), int)
    every = np.arange(count)
    for look in plan.looks if plan else (replicates,):
        if look > replicates:
            break
        used[live & (live.sum(1, keepdims=True) > 1)] = look
        if look < LEAST:
            continue
        value, half = studies.differences(look, i, j, plan.alpha_at(look, level) if plan else level)
        worse = np.zeros((count, settings, settings), bool)  # i is worse than j; lower is better
        worse[:, i, j], worse[:, j, i] = value > half, -value > half
        best = np.where(live, studies.values[:, :, :look].mean(2), np.inf).argmin(1)
        live &= ~worse[every, :, best]
    return ~live, used.sum(1)


def panel_of(studies: Studies, r: int, names: tuple[str, ...]) -> Panel:
    """Return study number r as the product sees it, with all its trainings."""
    replicates = studies.values.shape[2]
    nothing, size = torch.zeros(2), len(names) * replicates
    trainings = {
        name: tuple(Training(float(v), nothing, k, f"{name}/{k}") for k, v in enumerate(studies.values[r, s]))
        for s, name in enumerate(names)
    }
    return Panel(
        {name: Setting(name, of) for name, of in trainings.items()},
        studies.values[r].reshape(size),
        studies.covariance[r].reshape(size, size),
        {name: tuple(range(s * replicates, (s + 1) * replicates)) for s, name in enumerate(names)},
        studies.num_images,
    )


def check(studies: Studies, plan: Plan | None, decided: tuple[Array, Array]) -> None:
    """Judge the first studies by the product, and compare its verdicts with those of this script."""
    count, settings, _ = studies.values.shape
    names = tuple(f"s{s}" for s in range(settings))
    for r in range(min(CHECKED, count)):
        panel = panel_of(studies, r, names)
        against_base = judge_panel(panel, Family("base", names, "s0"), plan)
        assert [v.outcome.decided for v in against_base.verdicts] == decided[0][r].tolist(), f"base, study {r}"
        against_best = judge_panel(panel, Family("best", names), plan)
        found = {v.a: v.outcome.decided for v in against_best.verdicts} | {against_best.best: False}
        assert [found[name] for name in names] == decided[1][r].tolist(), f"best, study {r}"


# --- cells -----------------------------------------------------------------------------------------------------------


def share(count: int, of: int) -> str:
    """Return a share in per cent with its 99 % interval (Wilson), in bold if it lies wholly above 5 %."""
    z, p = 2.5758, count / of
    middle, spread = p + z * z / (2 * of), z * math.sqrt(p * (1 - p) / of + z * z / (4 * of * of))
    low, high = (middle - spread) / (1 + z * z / of), (middle + spread) / (1 + z * z / of)
    text = f"{100 * p:.1f} [{100 * max(low, 0):.1f}, {100 * high:.1f}]"
    return f"**{text}**" if low > 0.05 else text


def seeds(*of: int) -> list[int]:
    """Return the seed of a part, which another `--seed` changes."""
    return [*of, *([_SEED] if _SEED else [])]


def chunks(source: Source, seed: int, settings: int, replicates: int, total: int) -> Iterator[Studies]:
    rng = np.random.default_rng(seeds(seed, settings, replicates))
    size = max(min(total, 20_000_000 // (settings * replicates) ** 2), 1)
    for start in range(0, total, size):
        yield source(rng, min(size, total - start), settings, replicates)


def print_nulls(sources: dict[str, Source], total: int) -> None:
    """Print a row for each cell: false verdicts of both families, fixed and racing, and coverage."""
    print(
        "| studies | settings | trainings | fixed, base | fixed, best | race, base | race, best | unadjusted covers | "
        "adjusted / unadjusted width |"
    )
    print("|:--|--:|--:|--:|--:|--:|--:|--:|--:|")
    for number, (name, source) in enumerate(sources.items()):
        for settings, replicates in itertools.product(SETTINGS, REPLICATES):
            counts, covered, widths = np.zeros(4, int), 0, []
            plans = (Plan.fixed(replicates), Plan.racing(2, replicates))
            for studies in chunks(source, number, settings, replicates, total):
                for at, plan in enumerate(plans):
                    found = decided_against_base(studies, plan)[0], decided_against_best(studies, plan)[0]
                    check(studies, plan, found)
                    counts[2 * at : 2 * at + 2] += [int(each.any(1).sum()) for each in found]
                pair = np.array([1]), np.array([0])
                value, half = studies.differences(replicates, *pair, ALPHA)
                covered += int((np.abs(value) <= half).sum())
                level = plans[0].alpha_at(replicates, per_comparison(ALPHA, settings - 1))
                adjusted = studies.differences(replicates, *pair, level)[1]
                widths.append(np.median(adjusted[half > 0] / half[half > 0]))
            width = "no verdict" if replicates < LEAST else f"{np.mean(widths):.2f}"
            shares = " | ".join(share(int(count), total) for count in counts)
            covers = f"{100 * covered / total:.1f}"
            print(f"| {name} | {settings} | {replicates} | {shares} | {covers} | {width} |", flush=True)


def run_race(panel: Panel, race: Race, first: int) -> tuple[dict[str, int], Standing]:
    """Give trainings as a study does, by its own rule. Return their numbers by setting, and the last standing."""
    counts = dict.fromkeys(panel.settings, first)
    while not (standing := race.standing_of(panel.first(counts))).over:
        counts |= standing.wanted
    return counts, standing


def print_races(total: int, only: Sequence[str] = (), part: tuple[int, int] = (1, 1)) -> None:
    """Print the false verdicts of races from 2 trainings on, driven training by training by the rule of a study.

    A study judges both families, and a setting gets a training if any family wants it. Each family has its own error of
    5 %. A training that a family does not want does not change its verdicts, so the columns of a family are those of
    the tables above, for other studies.
    """
    number, parts = part
    print("| studies | settings | most | base | best | trainings, most of each = 100 % |")
    print("|:--|--:|--:|--:|--:|--:|")
    sources = {
        "equal": crossed(),
        "sd 1 to 5": crossed(spread=5.0),
        "half far worse": _half_worse(crossed()),
    }
    for (name, source), settings, most in itertools.product(sources.items(), (2, 4), (5, 10)):
        if name == "half far worse" and settings == 2:
            continue  # no two settings are equal
        if only and name not in only:
            continue
        names = tuple(f"s{s}" for s in range(settings))
        race = Race((Family("base", names, "s0"), Family("best", names)), Plan.racing(2, most))
        wrong, used, judged = np.zeros(2, int), 0, 0
        equal = set(names[: settings // 2] if name == "half far worse" else names)
        for studies in chunks(source, 700, settings, most, total):
            for r in range(number - 1, len(studies.values), parts):
                judged += 1
                counts, end = run_race(panel_of(studies, r, names), race, 2)
                assert all(2 <= count <= most for count in counts.values())
                used += sum(counts.values())
                wrong += [any(v.outcome.decided and {v.a, v.b} <= equal for v in each.verdicts) for each in end.judged]
        if parts > 1:  # the numbers of all parts are summed by the reader
            wrong_of = " | ".join(f"{count} of {judged}" for count in wrong)
            print(f"| {name} | {settings} | {most} | {wrong_of} | {used} of {judged * settings * most} |", flush=True)
            continue
        shares = " | ".join(share(int(count), judged) for count in wrong)
        spent = 100 * used / (judged * settings * most)
        print(f"| {name} | {settings} | {most} | {shares} | {spent:.0f} % |", flush=True)


def _half_worse(source: Source) -> Source:
    """Return a source in which the second half of the settings is worse by 10 sd, and the others are equal."""

    def draw(rng: np.random.Generator, studies: int, settings: int, replicates: int) -> Studies:
        drawn = source(rng, studies, settings, replicates)
        drawn.values[:, settings // 2 :] += 10.0
        return drawn

    return draw


def print_widths(total: int) -> None:
    """Print how wide adjusted and sequential intervals are at the last look, unadjusted intervals = 1."""
    print("| settings | trainings | fixed, base | fixed, best | race, base | race, best |")
    print("|--:|--:|--:|--:|--:|--:|")
    pair = np.array([1]), np.array([0])
    for settings, replicates in itertools.product(SETTINGS, REPLICATES[1:]):
        studies = next(chunks(crossed(), 800, settings, replicates, total))
        bare = studies.differences(replicates, *pair, ALPHA)[1]
        cells = []
        for plan in (Plan.fixed(replicates), Plan.racing(2, replicates)):
            for comparisons in (settings - 1, math.comb(settings, 2)):
                level = plan.alpha_at(replicates, per_comparison(ALPHA, comparisons))
                cells.append(f"{np.median(studies.differences(replicates, *pair, level)[1] / bare):.2f}")
        print(f"| {settings} | {replicates} | {' | '.join(cells)} |")


def print_extension(total: int) -> None:
    """Print the false verdicts of a plan of 5 trainings that is extended to 10 if nothing is decided at 5."""
    print("| settings | at 5 | at 5 or 10 |")
    print("|--:|--:|--:|")
    for settings in SETTINGS:
        first, either = 0, 0
        for studies in chunks(crossed(), 100, settings, 10, total):
            early = Studies(studies.values[:, :, :5], studies.covariance[:, :, :5, :, :5], studies.num_images)
            at_5 = decided_against_base(early, Plan.fixed(5))[0].any(1)
            level = Plan.fixed(5).extended(10).alpha_at(10, per_comparison(ALPHA, settings - 1))
            value, half = studies.differences(10, np.arange(1, settings), np.zeros(settings - 1, int), level)
            first += int(at_5.sum())
            either += int((at_5 | (np.abs(value) > half).any(1)).sum())
        print(f"| {settings} | {share(first, total)} | {share(either, total)} |")


def shifted(source: Source, shift: float) -> Source:
    """Return a source in which the setting number 1 is better by `shift`, and the others are equal."""

    def draw(rng: np.random.Generator, studies: int, settings: int, replicates: int) -> Studies:
        drawn = source(rng, studies, settings, replicates)
        drawn.values[:, 1] -= shift
        return drawn

    return draw


def print_power(total: int) -> None:
    """Print how often a true difference is found, beside plain t-tests with as many trainings."""
    print(
        "| settings | true difference (sd) | trainings | plain t-test, Bonferroni | fixed plan | race to 10 | "
        "trainings of a race, fixed plan of 10 = 100 % |"
    )
    print("|--:|--:|--:|--:|--:|--:|--:|")
    for settings, shift, replicates in itertools.product((2, 5), (0.0, 1.0, 2.0, 3.0), (3, 5, 10)):
        found, used = np.zeros(3), 0.0
        for studies in chunks(shifted(crossed(images=0.1, own=0.1), shift), 200, settings, replicates, total):
            x, y = studies.values[:, 1], studies.values[:, 0]
            found[0] += int((ttest_ind(x, y, axis=1).pvalue < ALPHA / (settings - 1)).sum())
            found[1] += int(decided_against_base(studies, Plan.fixed(replicates))[0][:, 0].sum())
            if replicates == 10:
                decided, trainings = decided_against_base(studies, Plan.racing(2, 10))
                found[2] += int(decided[:, 0].sum())
                used += float(trainings.sum()) / (settings * 10)
        race = f"{100 * found[2] / total:.0f} % | {100 * used / total:.0f} %" if replicates == 10 else " | "
        print(
            f"| {settings} | {shift:g} | {replicates} | {100 * found[0] / total:.0f} % | "
            f"{100 * found[1] / total:.0f} % | {race} |"
        )


def print_winner(total: int) -> None:
    """Print the error of a winner's mean: in the search that chose it, and in new trainings on other images."""
    rng = np.random.default_rng(seeds(300))
    print("| settings searched | trainings | mean error in the search | mean error confirmed | in standard errors |")
    print("|--:|--:|--:|--:|--:|")
    for settings, replicates in ((5, 5), (12, 5), (50, 5), (12, 3)):
        truth = rng.standard_normal((total, settings)) * 0.5
        searched = truth + crossed()(rng, total, settings, 1).values[:, :, 0]
        winner = searched.argmin(1)
        every = np.arange(total)
        confirmed = crossed()(rng, total, 1, replicates).values.mean(2)[:, 0]
        of_search = searched[every, winner] - truth[every, winner]
        error = confirmed.std(ddof=1) / math.sqrt(total)
        print(
            f"| {settings} | {replicates} | {of_search.mean():.3f} | {confirmed.mean():.4f} | "
            f"{confirmed.mean() / error:+.1f} |"
        )


def print_methods(total: int) -> None:
    """Print the false verdicts of methods that are not used: Dunnett with one variance, and Welch's df alone."""
    print("| sd of base : others | trainings | Dunnett, one variance | Welch, Sidak | Banerjee, Sidak | as used |")
    print("|:--|--:|--:|--:|--:|--:|")
    for spread, replicates in itertools.product((1.0, 0.2, 5.0), (3, 5, 10)):
        rng, settings = np.random.default_rng(seeds(400)), 5
        values = rng.standard_normal((total, settings, replicates))
        values[:, 1:] *= spread
        few = values[:500]  # scipy needs a while for each
        pooled = sum(
            bool((dunnett(*study[1:], control=study[0], random_state=0).pvalue < ALPHA).any()) for study in few
        )
        studies = Studies(values, np.zeros((total, settings, replicates, settings, replicates)), 40)
        used = decided_against_base(studies, None)[0].any(1).sum()
        a, b = values[:, 1:], values[:, :1]
        va, vb = a.var(2, ddof=1) / replicates, b.var(2, ddof=1) / replicates
        t = np.abs(a.mean(2) - b.mean(2)) / np.sqrt(va + vb)
        df = (va + vb) ** 2 / ((va**2 + vb**2) / (replicates - 1))
        quantile = 1 - per_comparison(ALPHA, settings - 1) / 2
        welch = (t > stdtrit(df, quantile)).any(1).sum()
        banerjee = (t > stdtrit(replicates - 1, quantile)).any(1).sum()
        print(
            f"| 1 : {spread:.3g} | {replicates} | {share(pooled, len(few))} | {share(int(welch), total)} | "
            f"{share(int(banerjee), total)} | {share(int(used), total)} |"
        )


def print_sequential(total: int) -> None:
    """Print power and trainings of ways to look again and again, for two settings and a race to 10."""
    print("| true difference (sd) | (r / most)^2 | O'Brien-Fleming | Pocock | confidence sequence (t mixture) |")
    print("|--:|--:|--:|--:|--:|")
    looks = range(LEAST, 11)
    fractions = tuple(look / 10 for look in looks)
    spending = {
        "squared": tuple(ALPHA * f**2 for f in fractions),
        "obrien": tuple(float(2 * ndtr(ndtri(ALPHA / 2) / math.sqrt(f))) for f in fractions),
        "pocock": tuple(ALPHA * math.log1p((math.e - 1) * f) for f in fractions),
    }
    for shift in (0.0, 1.0, 1.5, 2.5):
        rng = np.random.default_rng(seeds(500))
        x, y = rng.standard_normal((total, 10)) - shift, rng.standard_normal((total, 10))
        cells = []
        for spent in spending.values():
            levels = dict(zip(looks, nominal_levels(fractions, spent), strict=True))
            cells.append(_race_of_two(x, y, lambda a, b, levels=levels: _welch_rejects(a, b, levels[a.shape[1]])))
        cells.append(_race_of_two(x, y, _sequence_rejects))
        print(f"| {shift:g} | {' | '.join(cells)} |")


def _race_of_two(x: Array, y: Array, rejects: Callable[[Array, Array], Array]) -> str:
    decided, used = np.zeros(len(x), bool), np.full(len(x), x.shape[1])
    for look in range(LEAST, x.shape[1] + 1):
        now = rejects(x[:, :look], y[:, :look]) & ~decided
        used[now] = look
        decided |= now
    return f"{100 * decided.mean():.1f} %, {used.mean():.1f} trainings"


def _welch_rejects(x: Array, y: Array, level: float) -> Array:
    return ttest_ind(x, y, axis=1, equal_var=False).pvalue < level


def _sequence_rejects(x: Array, y: Array) -> Array:
    """Return where the mixture of t-tests on pairs (Lai, 1976) exceeds 1 / alpha. The effect size has sd 2."""
    d, n = x - y, x.shape[1]
    t2, growth = d.mean(1) ** 2 / (d.var(1, ddof=1) / n), 1 + 4 * n
    return growth**-0.5 * ((1 + t2 / (n - 1)) / (1 + t2 / ((n - 1) * growth))) ** (n / 2) >= 1 / ALPHA


# --- real trainings --------------------------------------------------------------------------------------------------


def train_replicates(home: Path) -> dict[str, list[Judgement]]:
    """Return the judgements of `digits-quick` by set of images, one for each seed. Finished work is found."""
    judged: dict[str, list[Judgement]] = {}
    for seed in SEEDS:
        tree = presets.load("digits-quick")
        tree["training"] = {**tree["training"], "seed": seed}
        config = parse_trial(tree)
        dataset = prepare(config.data, home, progress=False)
        outcome = Chain(config, dataset, Store(home / "store")).run(train, lambda *_: None)
        for name, judgement in outcome.judgements.items():
            judged.setdefault(name, []).append(judgement)
    return judged


def print_sham(judged: dict[str, list[Judgement]], metrics: tuple[str, ...], divisions: int = 1000) -> None:
    """Divide the twelve networks at random into sham settings, and count divisions with any verdict."""
    print("| metric | images | sham settings | trainings of each | base | best | unadjusted |")
    print("|:--|:--|--:|--:|--:|--:|--:|")
    for metric, name in itertools.product(metrics, ("sampled", "direct")):
        trainings = [Training.of(j, metric, seed, str(seed)) for seed, j in enumerate(judged[name])]
        source = Panel.of([Setting("all", tuple(trainings))])
        values, gram = source.values, source.covariance
        for settings in (2, 3, 4, 6):
            rng, replicates = np.random.default_rng(seeds(600, settings)), len(SEEDS) // settings
            orders = np.array([rng.permutation(len(SEEDS)) for _ in range(divisions)])
            shape = (divisions, settings, replicates)
            drawn = Studies(
                values[orders].reshape(shape),
                gram[orders[:, :, None], orders[:, None]].reshape(*shape, settings, replicates),
                source.num_images,
            )
            plan = Plan.fixed(replicates)
            families = [decided(drawn, plan)[0].any(1) for decided in (decided_against_base, decided_against_best)]
            i, j = np.arange(1, settings), np.zeros(settings - 1, int)
            value, half = drawn.differences(replicates, i, j, ALPHA)
            bare = (np.abs(value) > half).any(1) & (replicates >= LEAST)
            told = " | ".join(f"{100 * found.mean():.1f} %" for found in (*families, bare))
            print(f"| {metric} | {name} | {settings} | {replicates} | {told} |")


def print_single(judged: dict[str, list[Judgement]], metrics: tuple[str, ...]) -> None:
    """Print the spread of the twelve networks, and how often the interval over images tells two of them apart."""
    print("| metric | images | mean | sd | smallest | largest | pairs told apart by images alone |")
    print("|:--|:--|--:|--:|--:|--:|--:|")
    for metric, name in itertools.product(metrics, ("sampled", "direct")):
        values = np.array([judgement.values[metric].value for judgement in judged[name]])
        pairs = list(itertools.combinations(judged[name], 2))
        apart = sum(compare(a, b, metric).better is not None for a, b in pairs) / len(pairs)
        print(
            f"| {metric} | {name} | {values.mean():.4f} | {values.std(ddof=1):.4f} | {values.min():.4f} | "
            f"{values.max():.4f} | {100 * apart:.0f} % |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, help="holds the twelve trainings, or gets them")
    parser.add_argument("--studies", type=int, default=STUDIES, help="simulated studies in each cell")
    parser.add_argument("--only", nargs="+", default=[], help="parts to compute: nulls, races, real, other")
    parser.add_argument("--races", nargs="+", default=[], metavar="STUDIES", help='rows of the races, such as "equal"')
    parser.add_argument(
        "--part", default="1/1", metavar="I/N", help="judge every N-th study of the races, and print counts to sum"
    )
    parser.add_argument("--seed", type=int, default=0, help="other studies, to test the method on fresh ones")
    options = parser.parse_args()
    global _SEED
    _SEED = options.seed
    use_threads(1)
    started, total = time.monotonic(), options.studies
    parts = options.only or ["nulls", "races", "real", "other"]
    print(f"commit {git_commit()}, {total} studies in each cell\n")
    if "nulls" in parts:
        print_nulls(
            {
                "model, equal sd": crossed(),
                "model, images dominate": crossed(images=1.0, own=0.5),
                "model, sd 1 to 5": crossed(spread=5.0),
                "model, skewed": crossed(skewed=True),
            },
            total,
        )
    if "races" in parts:
        print(f"\n{inspect.cleandoc(print_races.__doc__ or '')}\n")
        first, _, of = options.part.partition("/")
        print_races(total, options.races, (int(first), int(of)))
    if "real" in parts and options.home:
        judged = train_replicates(options.home)
        print_nulls(
            {
                "real FID": resampled(judged, "fid", ("sampled",)),
                "real FID, unequal sd": resampled(judged, "fid", ("sampled", "direct")),
                "real RMSE": resampled(judged, "rmse", ("sampled",)),
            },
            total,
        )
        for show in (print_single, print_sham):
            print()
            show(judged, ("fid", "kid", "mind", "ssim", "rmse"))
    if "other" in parts:
        for show_all in (print_widths, print_extension, print_power, print_winner, print_methods, print_sequential):
            print(f"\n{show_all.__doc__}\n")
            show_all(total)
    print(f"\n{time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()

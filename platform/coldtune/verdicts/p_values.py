"""P-values of a family for tables, adjusted by Holm (1979). Verdicts come from intervals, and do not use them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from itertools import combinations

from coldtune.verdicts.estimate import LEAST_P, Pair, contrast
from coldtune.verdicts.families import Family
from coldtune.verdicts.levels import Plan
from coldtune.verdicts.split import holm
from coldtune.verdicts.trainings import Panel, Setting

MOST_COMPARISONS = 500
"""A family of more comparisons gets no p-values, because they would take seconds."""

_BISECTIONS = 24  # halve the range of log levels until it is narrower than the printed digits
_MOST = 1 - 1e-9  # a level of 1 would leave nothing for later looks


def adjusted_p_values(
    settings: Iterable[Setting], family: Family, plan: Plan, best: str | None = None, *, pair: Pair = "network"
) -> dict[str, float]:
    """Return the Holm-adjusted p-value of each setting against the base, or against the best setting.

    The p-value of a comparison belongs to the same t statistic as its interval: it is the largest level whose intervals
    contain 0 at all looks. Comparisons that are not possible yet have no p-value, but they count in the adjustment. In
    the family "best", the p-values of all pairs are adjusted together, because the data choose the best setting.

    Args:
        settings: The settings with their trainings. A member of the family that is absent has no training yet.
        plan: The looks, which share the error.
        best: The setting with the best mean, for the family "best".
        pair: As in `compare`.

    Returns:
        The p-values by the name of the setting. They are empty if the family has too many comparisons.
    """
    given = {setting.name: setting for setting in settings}
    panel = Panel.of(given.get(name, Setting(name, ())) for name in family.members)
    reference = best if family.kind == "best" else family.base
    pairs = list(combinations(family.members, 2))
    if family.kind == "base":
        pairs = [each for each in pairs if reference in each]
    if reference is None or len(pairs) > MOST_COMPARISONS:
        return {}
    known = {each: _p_value(panel, *each, plan, pair) for each in pairs}
    to_come = family.comparisons - len(pairs) if family.to_come else 0
    adjusted = _adjusted({each: 1.0 if p is None else p for each, p in known.items()}, family.first, to_come)
    shown = [each for each in pairs if reference in each and known[each] is not None]
    return {a if b == reference else b: adjusted[a, b] for a, b in shown}


def _adjusted(
    p_values: Mapping[tuple[str, str], float], first: str | None, to_come: int
) -> dict[tuple[str, str], float]:
    """Adjust by Holm. A comparison that is tested first stays as it is, and is a lower limit of the others."""
    tested_first = {each: p for each, p in p_values.items() if first in each}
    rest = holm({each: p for each, p in p_values.items() if each not in tested_first}, to_come)
    least = max(tested_first.values(), default=0.0)
    return {**tested_first, **{each: max(p, least) for each, p in rest.items()}}


def _p_value(panel: Panel, a: str, b: str, plan: Plan, pair: Pair) -> float | None:
    """Return the p-value of a comparison over all its looks, or None if no look is complete."""
    least = min(len(panel.settings[name].trainings) for name in (a, b))
    by_look = {
        look: contrast(panel.first({a: look, b: look}), {a: 1.0, b: -1.0}, pair).p_value
        for look in plan.counted
        if look <= least
    }
    return over_looks(by_look, plan) if by_look else None


def over_looks(by_look: Mapping[int, float], plan: Plan) -> float:
    """Return the smallest error of all looks together with which a look of the plan finds a difference.

    Args:
        by_look: The p-value of each look that is complete, alone.
    """

    def decided(alpha: float) -> bool:
        return any(p <= plan.alpha_at(look, alpha) for look, p in by_look.items())

    if not decided(_MOST):
        return 1.0
    undecided, most = math.log(LEAST_P), math.log(_MOST)
    for _ in range(_BISECTIONS):
        middle = (undecided + most) / 2
        undecided, most = (undecided, middle) if decided(math.exp(middle)) else (middle, most)
    return math.exp(most)

"""Main effects and interactions of a design, as weighted sums of the means of its arms.

The weights are those of ordinary least squares on the means. Factors are coded so that the codes of their levels sum to
zero. If every combination of levels is there, the effect of a level is the difference of two plain means: of all arms
with the level, and of all arms with the reference level.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from coldtune.stages.trial import short_name
from coldtune.studies.space.design import DesignRecord
from coldtune.studies.space.design_kinds.kind import Factor
from coldtune.studies.space.distributions import write_value
from coldtune.studies.spec.ablation import AblationRecord, Change

Array: TypeAlias = NDArray[np.float64]
Group = Literal["effect", "interaction", "step", "alone", "whole"]

_EXACT = 1e-9


@dataclass(frozen=True)
class Effect:
    """A question to a design, as a weighted sum of the means of arms.

    Attributes:
        name: The effect in words.
        group: What the effect is: of a level, of two levels together, of a step of a path, of a change alone, or of all
            changes together.
        weights: The weight of each arm. They sum to zero. Arms with weight 0 are left out.
        problem: Why the effect cannot be known. "" if it can.
    """

    name: str
    group: Group
    weights: Mapping[str, float]
    problem: str = ""

    @property
    def question(self) -> frozenset[tuple[str, float]]:
        """The weights of the arms, up to a common factor.

        The intervals of two effects with equal questions are the same up to that factor. So both contain the truth, or
        neither does.
        """
        scale = self.weights[min(self.weights)] if self.weights else 1.0
        return frozenset((arm, round(weight / scale, 9)) for arm, weight in self.weights.items())


def effects_of_design(record: DesignRecord) -> list[Effect]:
    """Return the effect of each level, then the interactions of each two factors if the design shows them.

    An interaction is a difference of differences: how much the effect of a level changes if another factor leaves its
    reference level.
    """
    model = _Model.of(record, interactions=record.kind.interactions)
    alone = _Model.of(record, interactions=False)
    effects = []
    for factor in model.factors:
        reference = model.reference(factor)
        for level in (level for level in factor.levels if level != reference):
            name = f"{factor.label(level)} instead of {write_value(reference)}"
            # A main effect that is aliased with an interaction is estimated as if there were no interaction.
            found = model.main_effect(factor, level) or alone.main_effect(factor, level)
            effects.append(_effect(name, "effect", found))
    return [*effects, *model.interactions()] if record.kind.interactions else effects


def effects_of_ablation(record: AblationRecord) -> list[Effect]:
    """Return the steps of the path, the changes alone, the whole difference, and what the changes do together.

    All are the setting with a change minus the setting without it. So the steps sum to the whole difference.
    """
    effects, before = [], record.best
    for step in record.path:
        names = " and ".join(label_of_change(record.changes[name]) for name in step.changes)
        effects.append(Effect(names, "step", _minus(before, step.arm)))
        before = step.arm
    impossible = []
    together = _minus(record.best, record.base)
    for name, change in record.changes.items():
        if change.alone is None:
            impossible.append(name)
            effects.append(Effect(label_of_change(change), "alone", {}, f"cannot exist ({change.why_not})"))
            continue
        alone = _minus(change.alone, record.base)
        effects.append(Effect(label_of_change(change), "alone", alone))
        together = {arm: together.get(arm, 0) - alone.get(arm, 0) for arm in {**together, **alone}}
    effects.append(Effect("all changes", "whole", _minus(record.best, record.base)))
    if impossible:
        unknown = f"cannot be known, because {' and '.join(impossible)} alone cannot exist"
        return [*effects, Effect("interaction", "interaction", {}, unknown)]
    together = {arm: weight for arm, weight in together.items() if weight}
    nothing = "" if together else "0, because a single change is the whole"
    return [*effects, Effect("interaction", "interaction", together, nothing)]


def label_of_change(change: Change) -> str:
    """Return a change in words, for example `T=35 instead of 20`, or `schedule=linear rate=0.1 instead of constant`."""
    exact = any(_written(change.after, key) == _written(change.before, key) for key in change.keys)
    after = " ".join(
        f"{short_name(path)}={_written(change.after, path, exact)}" for path in change.keys if path in change.after
    )
    before = " ".join(_written(change.before, path, exact) for path in change.keys if path in change.before)
    return f"{after or 'nothing'} instead of {before or 'nothing'}"


def _written(values: Mapping[str, Any], path: str, exact: bool = False) -> str:
    """Return the value of a key as text, a number with four digits unless `exact`. "" if there is none."""
    if path not in values:
        return ""
    value = values[path]
    return f"{value:.4g}" if isinstance(value, float) and not exact else write_value(value)


def _minus(a: str, b: str) -> dict[str, float]:
    """Return the weights of a difference. It is empty if both are the same arm."""
    return {} if a == b else {a: 1.0, b: -1.0}


def _effect(name: str, group: Group, weights: Mapping[str, float] | None) -> Effect:
    if weights is None:
        return Effect(name, group, {}, "cannot be known from the arms that exist")
    return Effect(name, group, weights)


@dataclass(frozen=True)
class _Term:
    """The columns of a factor, or of a pair of factors, in the matrix of a model."""

    factors: tuple[Factor, ...]
    start: int
    stop: int


class _Model:
    """A linear model of the arms: a mean, a term for each factor, and perhaps a term for each two factors."""

    def __init__(self, factors: Sequence[Factor], record: DesignRecord, interactions: bool) -> None:
        self.factors, self.arms, self._record = factors, list(record.arms), record
        # If every arm changes a single factor, a key without effect in an arm is no change. So it is coded with the
        # level of the reference arm. In other designs it is coded with the mean of its levels.
        assumed = {} if record.kind.interactions else record.kind.arms(factors)[0].levels
        self._arms = {name: {**assumed, **levels} for name, levels in record.arms.items()}
        self._levels = {factor.path: self._present(factor) for factor in factors}
        columns, self._terms, place = [np.ones((len(self.arms), 1))], [], 1
        pairs = itertools.combinations(factors, 2) if interactions else ()
        for term in [*((factor,) for factor in factors), *pairs]:
            block = np.stack([self._code(term, self._arms[arm]) for arm in self.arms])
            columns.append(block)
            self._terms.append(_Term(tuple(term), place, place := place + block.shape[1]))
        self._matrix: Array = np.concatenate(columns, axis=1)
        self._inverse: Array = np.linalg.pinv(self._matrix).astype(np.float64)

    @classmethod
    def of(cls, record: DesignRecord, *, interactions: bool) -> _Model:
        return cls(record.described_factors(), record, interactions)

    def reference(self, factor: Factor) -> Any:
        """Return the level with which the others are compared: that of the record, or the first that occurs in an arm.

        No arm may have the level of the record if the base does not have the key, and an arm was skipped.
        """
        present, reference = self._levels[factor.path], self._record.references[factor.path]
        return present[0] if len(present) > 1 and reference not in present else reference

    def other_levels(self, factor: Factor) -> list[Any]:
        """Return the levels of a factor that occur in an arm, without the reference level."""
        reference = self.reference(factor)
        return [level for level in self._levels[factor.path] if level != reference]

    def main_effect(self, factor: Factor, level: Any) -> dict[str, float] | None:
        """Return the weights of a level minus the reference level, averaged over all else. None if not estimable."""
        present = self._levels[factor.path]
        if level not in present or self.reference(factor) not in present:
            return None
        return self._solve((factor,), self._change(factor, level))

    def interactions(self) -> list[Effect]:
        """Return the interactions of each two factors. Those that cannot be told apart are a single effect."""
        effects: list[Effect] = []
        done: set[int] = set()
        for term in self._terms:
            if len(term.factors) == 1 or term.start in done:
                continue
            done.add(term.start)
            same = [(sign, other) for sign, other in self._aliases(term) if other.start not in done]
            done |= {other.start for _, other in same}
            effects += self._interactions_of(term, same)
        return effects

    def _interactions_of(self, term: _Term, same: Sequence[tuple[int, _Term]]) -> list[Effect]:
        a, b = term.factors
        effects = []
        for one, two in itertools.product(self.other_levels(a), self.other_levels(b)):
            name = f"{a.label(one)} x {b.label(two)}"
            for sign, other in same:
                labels = [factor.label(self.other_levels(factor)[0]) for factor in other.factors]
                name += f" {'+' if sign > 0 else '-'} {' x '.join(labels)}"
            change = np.outer(self._change(a, one), self._change(b, two)).ravel()
            goal = np.zeros(self._matrix.shape[1])
            goal[term.start : term.stop] = change
            for sign, other in same:
                goal[other.start : other.stop] = sign * change
            effects.append(_effect(name, "interaction", self._weights_of(goal)))
        return effects

    def _aliases(self, term: _Term) -> list[tuple[int, _Term]]:
        """Return the other pairs of factors whose columns equal those of a pair, each with its sign."""
        if term.stop - term.start != 1:
            return []
        mine, found = self._matrix[:, term.start], []
        for other in self._terms:
            if len(other.factors) == 2 and other.start > term.start and other.stop - other.start == 1:
                product = float(mine @ self._matrix[:, other.start]) / len(mine)
                if abs(abs(product) - 1) < _EXACT:
                    found.append((round(product), other))
        return found

    def _solve(self, factors: tuple[Factor, ...], change: Array) -> dict[str, float] | None:
        (term,) = (term for term in self._terms if term.factors == factors)
        goal = np.zeros(self._matrix.shape[1])
        goal[term.start : term.stop] = change
        return self._weights_of(goal)

    def _weights_of(self, goal: Array) -> dict[str, float] | None:
        """Return the weights of the arms that estimate a combination of coefficients. None if no weights do."""
        weights = goal @ self._inverse
        if not np.allclose(weights @ self._matrix, goal, atol=_EXACT):
            return None
        weights = np.where(abs(weights) < _EXACT, 0, weights)
        return {arm: float(weight) for arm, weight in zip(self.arms, weights, strict=True) if weight}

    def _change(self, factor: Factor, level: Any) -> Array:
        return self._code_level(factor, level) - self._code_level(factor, self.reference(factor))

    def _code(self, factors: Collection[Factor], levels: Mapping[str, Any]) -> Array:
        code: Array = np.ones(1)
        for factor in factors:
            if factor.path not in levels:  # the key has no effect in this arm: the mean of its levels
                own = np.zeros(self._columns(factor))
            else:
                own = self._code_level(factor, levels[factor.path])
            code = np.outer(code, own).ravel().astype(np.float64)
        return code

    def _code_level(self, factor: Factor, level: Any) -> Array:
        """Return the code of a level: -1 in every column for the reference level, else 1 in its own column."""
        present = self._levels[factor.path]
        if level not in present:
            return np.zeros(self._columns(factor))
        place = present.index(level)
        return -np.ones(len(present) - 1) if place == 0 else np.eye(len(present) - 1)[place - 1]

    def _columns(self, factor: Factor) -> int:
        """Return the number of columns of a factor. A stored design may have a factor that no arm has."""
        return max(len(self._levels[factor.path]) - 1, 0)

    def _present(self, factor: Factor) -> list[Any]:
        """Return the levels that occur in an arm, the reference level first."""
        found = [arm[factor.path] for arm in self._arms.values() if factor.path in arm]
        reference = self._record.references[factor.path]
        rest = [level for level in factor.levels if level != reference and level in found]
        return [reference, *rest] if reference in found else rest

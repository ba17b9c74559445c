"""Pruning by a paired test on the images of a rung."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from coldtune.studies.search.paired_test import worse_image_by_image
from coldtune.studies.search.pruning_rules.rule import PruningRule, RungCase


@dataclass(frozen=True)
class Wilcoxon(PruningRule):
    """The rule `wilcoxon`: a trial ends if it is worse, image by image, than the best trial was at the same rung."""

    startup: int
    p_value: float

    def describe(self) -> str:
        """Describe the rule."""
        return f"a trial that is worse than the best trial was, image by image (p < {self.p_value:g}), ends"

    def prunes(self, case: RungCase) -> bool:
        """Return True if the test finds the trial worse. Without a finished trial there is nothing to compare with."""
        pair = case.judgements()
        return pair is not None and worse_image_by_image(*pair, case.metric, self.p_value)

    def prunes_on_average(
        self, hoped_for: float, ask_optuna: Callable[[], bool], best_of_others: Callable[[], float | None]
    ) -> bool:
        """Return True if the best finished setting is better than the setting's mean, minus the training sd."""
        best = best_of_others()
        return best is not None and hoped_for > best

"""Verdicts about settings, which include the luck of training: differences, families, looks, races and sentences.

Everything here is computed from values and image influences alone. Nothing is read, trained or stored.
"""

from coldtune.verdicts.estimate import Difference, Pair, contrast
from coldtune.verdicts.families import Family, Judged, compare, judge
from coldtune.verdicts.levels import LEAST, Plan
from coldtune.verdicts.p_values import adjusted_p_values
from coldtune.verdicts.planning import detectable_difference, detectable_effect, paying_correlation, trainings_to_detect
from coldtune.verdicts.racing import Race, Standing
from coldtune.verdicts.split import (
    SettingVariance,
    Split,
    advise,
    combine_variances,
    describe_others,
    holm,
    narrowing_by_images,
    narrowing_by_trainings,
    split_variance,
)
from coldtune.verdicts.trainings import Panel, Setting, Training
from coldtune.verdicts.verdict import Outcome, Verdict

__all__ = [
    "LEAST",
    "Difference",
    "Family",
    "Judged",
    "Outcome",
    "Pair",
    "Panel",
    "Plan",
    "Race",
    "Setting",
    "SettingVariance",
    "Split",
    "Standing",
    "Training",
    "Verdict",
    "adjusted_p_values",
    "advise",
    "combine_variances",
    "compare",
    "contrast",
    "describe_others",
    "detectable_difference",
    "detectable_effect",
    "holm",
    "judge",
    "narrowing_by_images",
    "narrowing_by_trainings",
    "paying_correlation",
    "split_variance",
    "trainings_to_detect",
]

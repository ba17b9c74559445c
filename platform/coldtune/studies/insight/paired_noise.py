"""The noise of settings that share one trained network and their images."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from coldtune.metrics import Judgement, compare
from coldtune.metrics.intervals import QUANTILE
from coldtune.studies.storage.record import TrialRecord
from coldtune.studies.storage.settings import Setting
from coldtune.studies.trials.judging import network_of
from coldtune.studies.trials.reading import StudyReader

_COMPARED = 12  # settings, spread over the better half of the study


def shares_network(settings: Sequence[Setting]) -> bool:
    """Return True if all settings have a single training, which is the same for all."""
    trainings = [list(setting.finished.values()) for setting in settings]
    return all(len(each) == 1 for each in trainings) and len({network_of(each[0]) for each in trainings}) == 1


def read_paired_noise(reader: StudyReader, settings: Sequence[Setting], metric: str) -> float | None:
    """Return the noise over images of settings that share a network, as `paired_noise` does.

    Args:
        settings: From the best on.

    Returns:
        None if fewer than two of the judgements can be read, or the metric has no numbers for each image.
    """
    half = settings[: max(2, len(settings) // 2)]
    chosen = half[:: max(1, len(half) // _COMPARED)][:_COMPARED]
    judgements = []
    for setting in chosen:
        record = TrialRecord.of(next(iter(setting.finished.values())))
        try:
            judgements.append(Judgement.load(reader.local_folder(record.measured["sampled"])))
        except (KeyError, OSError, ValueError):  # of an older version, or no longer in the store
            continue
    try:
        return paired_noise(judgements, metric)
    except ValueError:
        return None


def paired_noise(judgements: Sequence[Judgement], metric: str) -> float | None:
    """Return the noise over images of a setting that is compared with another on the same images.

    The difficulty of an image cancels in a difference, so the noise is much less than the width of the settings' own
    intervals says. It is the standard deviation of a difference, divided by sqrt(2) as if the noise of two settings
    were independent, and the median over the differences to the first setting.

    Returns:
        None if no setting differs from the first.

    Raises:
        ValueError: If the metric has no numbers for each image.
    """
    if not judgements:
        return None
    first, *others = judgements
    differences = [compare(first, other, metric).difference for other in others]
    found = [(each.high - each.low) / (2 * QUANTILE) for each in differences if each.high > each.low]
    return statistics.median(found) / math.sqrt(2) if found else None

"""The part of a trial's stages that was found in the store, and the seconds that this saved."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from coldtune.durations import format_work

_WORDS = {"train": "training", "sample": "sampling", "measure": "measurement"}


@dataclass(frozen=True)
class StageRecord:
    """A stage of a trial.

    Attributes:
        stage: `train`, `sample` or `measure`, followed by the set of images (`sample_naive`) or by the rung
            (`train_400`).
        found: Whether the result was found in the store.
        seconds: How long the stage took, or, if it was found, how long it took its maker.
        earlier: For a training that continued from a checkpoint, the seconds of training up to that checkpoint.
        by: Who made the result that was found or continued from (`Store.by`), if that was recorded.
    """

    stage: str
    key: str
    found: bool
    seconds: float
    earlier: float = 0.0
    by: str | None = None


@dataclass(frozen=True)
class Reuse:
    """The work of a trial's stages, divided into its own and that of others.

    Attributes:
        own: Seconds that the trial itself worked on each of `train`, `sample` and `measure`, including those before an
            interruption. A stage that was found is missing.
        found: How many of each were found in the store, made by others.
        saved: The seconds that the found stages took their makers, plus those of the checkpoints of others from which
            a training continued.
        before: The part of `own` that was done before an interruption.
    """

    own: Mapping[str, float]
    found: Mapping[str, int]
    saved: float
    before: float

    @classmethod
    def of(cls, records: Iterable[StageRecord], me: str | None = None) -> Reuse:
        """Sum up the records of a trial.

        Args:
            me: The name under which the trial uses the store, if it was interrupted and resumed. Then finding its own
                earlier work saves nothing. None counts all that was found, whoever made it.
        """
        own: dict[str, float] = {}
        found: Counter[str] = Counter()
        saved = before = 0.0
        for record in records:
            stage = record.stage.partition("_")[0]
            mine = me is not None and record.by == me
            if record.found and not mine:
                found[stage] += 1
                saved += record.seconds
                continue
            resumed = (record.earlier + record.found * record.seconds) if mine else 0.0
            own[stage] = own.get(stage, 0.0) + record.seconds * (not record.found) + resumed
            before += resumed
            saved += 0.0 if mine else record.earlier
        return cls(own, dict(found), saved, before)

    def describe(self) -> str:
        """Return a sentence for people: the seconds of each stage, or that it was found, and the seconds saved."""
        parts = []
        for stage, word in _WORDS.items():
            number = self.found.get(stage, 0)
            took = f"{word} {self.own[stage]:.1f} s" if stage in self.own else ""
            more = "" if not number else f"{number} found" if took else f"{word} found" + _times(number)
            parts += [f"{took} ({more})" if took and more else took or more] if took or more else []
        return "; ".join(parts) + (f". Saved: {self.saved:.1f} s." if self.found or self.saved else ".")


def describe_saved_work(trials: Iterable[tuple[Mapping[str, int], float]]) -> str:
    """Return a sentence about all work that trials found in the store, or "" if they found nothing.

    Args:
        trials: For each trial, how many of each stage it found, and the seconds that this saved.
    """
    counts: Counter[str] = Counter()
    seconds = 0.0
    for found, saved in trials:
        counts.update(found)
        seconds += saved
    known = ((counts[stage], word) for stage, word in _WORDS.items())
    listed = ", ".join(f"{count} {word}{'s' * (count > 1)}" for count, word in known if count)
    if not listed and seconds < 1:
        return ""
    work = f"{listed or 'parts of trainings'}, {format_work(seconds)} of work"
    return f"Found in the store, not done again: {work}"


def _times(number: int) -> str:
    return f" ({number})" if number > 1 else ""

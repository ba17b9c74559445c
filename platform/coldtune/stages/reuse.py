"""What a trial did itself, what it found done, and the seconds that this saved."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coldtune.durations import format_work

if TYPE_CHECKING:
    from coldtune.stages.chain import StageRecord

_WORDS = {"train": "training", "sample": "sampling", "measure": "measurement"}


@dataclass(frozen=True)
class Share:
    """One trial's part in its own stages.

    own: seconds that it worked on each of `train`, `sample` and `measure`, those before an interruption too; none where
    a stage was found. found: how many of each were found in the store, made by others. saved: the seconds these took
    their makers, and what a training that went on from another's checkpoint did not do again. before: of own, what was
    done before an interruption.
    """

    own: Mapping[str, float]
    found: Mapping[str, int]
    saved: float
    before: float

    def describe(self) -> str:
        """For a person: each stage's seconds, or that it was found, and what that saved."""
        parts = []
        for stage, word in _WORDS.items():
            number = self.found.get(stage, 0)
            took = f"{word} {self.own[stage]:.1f} s" if stage in self.own else ""
            more = "" if not number else f"{number} found" if took else f"{word} found" + _times(number)
            parts += [f"{took} ({more})" if took and more else took or more] if took or more else []
        return "; ".join(parts) + (f". Saved: {self.saved:.1f} s." if self.found or self.saved else ".")


def share(records: Iterable[StageRecord], me: str | None = None) -> Share:
    """What of a trial's stages was its own work and what was found.

    me: the name under which it uses the store, where it was interrupted before and takes its own work up again, which
    saves it nothing.
    """
    own: dict[str, float] = {}
    found: Counter[str] = Counter()
    spared = before = 0.0
    for record in records:
        stage = record.stage.partition("_")[0]
        mine = me is not None and record.by == me
        if record.found and not mine:
            found[stage] += 1
            spared += record.seconds
            continue
        taken_up = (record.earlier + record.found * record.seconds) if mine else 0.0
        own[stage] = own.get(stage, 0.0) + record.seconds * (not record.found) + taken_up
        before += taken_up
        spared += 0.0 if mine else record.earlier
    return Share(own, dict(found), spared, before)


def saved(trials: Iterable[tuple[Mapping[str, int], float]]) -> str:
    """Return a sentence on what trials found in the store, or "" if they found nothing.

    trials: For each trial, how many of each stage it found, and the seconds that this saved.
    """
    counts: Counter[str] = Counter()
    seconds = 0.0
    for found, spared in trials:
        counts.update(found)
        seconds += spared
    known = ((counts[stage], word) for stage, word in _WORDS.items())
    listed = ", ".join(f"{count} {word}{'s' * (count > 1)}" for count, word in known if count)
    if not listed and seconds < 1:
        return ""
    work = f"{listed or 'parts of trainings'}, {format_work(seconds)} of work"
    return f"Found in the store, not done again: {work}"


def _times(number: int) -> str:
    return f" ({number})" if number > 1 else ""

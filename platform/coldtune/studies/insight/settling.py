"""Whether the search of a running study has settled, for `--stop-when-settled`."""

from __future__ import annotations

from pathlib import Path

from coldtune.studies.insight.checks.settled_search import describe_settled
from coldtune.studies.insight.facts import observe
from coldtune.studies.trials.reading import StudyReader


class WatchedSearch:
    """The search of a study that runs. The study is read again only after a trial has ended."""

    def __init__(self, reader: StudyReader, home: Path) -> None:
        self._reader, self._home = reader, home
        self._judged, self._why = -1, ""

    def why_settled(self) -> str | None:
        """Return why the search has settled, in a sentence. None if it has not."""
        if (ended := self._reader.ended()) != self._judged:
            facts = observe(self._reader, self._home)
            self._why = "" if facts.mixed else describe_settled(facts)
            self._judged = ended
        return self._why or None

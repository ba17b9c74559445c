"""The record of a confirmation: the settings that a search has chosen, which new trainings judge on the test split."""

from __future__ import annotations

from coldtune.config import Config

JOB = "{search}-confirm"
"""The name of a confirmation before its hash."""


class Confirmation(Config):
    """The settings that a search has chosen.

    Attributes:
        study: The name of the search.
        what: `trial`, or `setting` if the search trained its settings several times. The numbers count these.
        winner: The variant of the setting with the best value in the search.
        base: The variant of the search's base.
        numbers: By variant, the number in the search. None for a base that the search did not finish.
    """

    study: str
    what: str
    winner: str
    base: str
    numbers: dict[str, int | None]

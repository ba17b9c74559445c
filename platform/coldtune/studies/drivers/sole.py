"""The lease of a driver that is known to be alone."""

from __future__ import annotations

from coldtune.studies.drivers.election import Driver


class SoleDriver:
    """A lease for a study that no other driver runs, with the interface of `DriverLease`.

    Every trial that is running in the storage was then interrupted. Tests and tools that own their storage use it.
    """

    token = "sole"
    seconds = 0.0

    def others(self) -> list[Driver]:
        """Return no drivers."""
        return []

    def alive(self, token: str) -> bool:
        """Return False for the token of every other driver."""
        return token == self.token

    def leads(self) -> bool:
        """Return True."""
        return True

    def announce(self, dashboard: str) -> None:
        """Do nothing, because nobody else reads the study."""

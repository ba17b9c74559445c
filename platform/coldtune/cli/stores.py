"""Which store is meant where a home, or trials by name, are."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from coldtune.store.location import StoreLocation
from coldtune.studies.spec.folder import StudyFolder, studies


def store_of_home(home: Path, place: str | None = None) -> StoreLocation:
    """The store that `place` names, otherwise the one that all the home's studies use (`home/store` where none is).

    ValueError where they use several.
    """
    if place is not None:
        return StoreLocation.in_home(home, place)
    return _one(home, (_used(folder) for folder in studies(home)))


def store_of_runs(home: Path, names: Iterable[str], place: str | None = None) -> StoreLocation:
    """The store of the trials that `names` mean: those of studies, their study's; others, the home's.

    ValueError where they lie in several.
    """
    if place is not None:
        return StoreLocation.in_home(home, place)
    folders = [StudyFolder(home, study) for name in names if (study := name.partition("/")[0]) and study[0] != "."]
    known = [folder for folder in folders if folder.exists]
    return _one(home, map(_used, known)) if known else store_of_home(home)


def own(home: Path, store: StoreLocation) -> bool:
    """Whether a store is the home's own, which no other home uses."""
    return store == StoreLocation.in_home(home, None)


def _one(home: Path, stores: Iterable[StoreLocation | None]) -> StoreLocation:
    used = sorted({store for store in stores if store is not None}, key=lambda store: store.shown)
    if len(used) > 1:
        there = ", ".join(store.shown for store in used)
        raise ValueError(f"--store: the studies meant in {home} use several; name one of {there}")
    return used[0] if used else StoreLocation.in_home(home, None)


def _used(folder: StudyFolder) -> StoreLocation | None:
    try:
        return folder.store()
    except (OSError, ValueError):  # one that cannot be read must not hide the others
        return None

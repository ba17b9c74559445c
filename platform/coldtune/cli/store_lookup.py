"""Find the store that a home, or a list of trial names, refers to."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from coldtune.store.location import StoreLocation
from coldtune.studies.spec.folder import StudyFolder, studies


def locate_store(home: Path, place: str | None = None) -> StoreLocation:
    """Return the store that `place` names, or else the store of all studies of the home.

    Args:
        home: The home. If it has no studies, its store is `home/store`.
        place: The value of `--store`.

    Raises:
        ValueError: If the studies use several stores and `place` is None.
    """
    if place is not None:
        return StoreLocation.in_home(home, place)
    return _single_store(home, (_store_of_study(folder) for folder in studies(home)))


def locate_store_of_trials(home: Path, names: Iterable[str], place: str | None = None) -> StoreLocation:
    """Return the store of the trials that `names` refer to.

    Trials of a study of the home are in the study's store. For all other names, `locate_store` decides.

    Raises:
        ValueError: If the trials are in several stores and `place` is None.
    """
    if place is not None:
        return StoreLocation.in_home(home, place)
    folders = [StudyFolder(home, study) for name in names if (study := name.partition("/")[0]) and study[0] != "."]
    known = [folder for folder in folders if folder.exists]
    return _single_store(home, map(_store_of_study, known)) if known else locate_store(home)


def belongs_to_home(home: Path, store: StoreLocation) -> bool:
    """Return True if `store` is the home's own store, which no other home uses."""
    return store == StoreLocation.in_home(home, None)


def _single_store(home: Path, stores: Iterable[StoreLocation | None]) -> StoreLocation:
    used = sorted({store for store in stores if store is not None}, key=lambda store: store.shown)
    if len(used) > 1:
        names = ", ".join(store.shown for store in used)
        raise ValueError(f"--store: the studies in {home} use several stores. Name one of {names}.")
    return used[0] if used else StoreLocation.in_home(home, None)


def _store_of_study(folder: StudyFolder) -> StoreLocation | None:
    try:
        return folder.store()
    except (OSError, ValueError):  # an unreadable study must not hide the others
        return None

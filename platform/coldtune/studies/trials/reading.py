"""Reading a study without running it."""

from __future__ import annotations

from coldtune.data import Dataset, prepared
from coldtune.studies.drivers.election import DriverLease
from coldtune.studies.drivers.registry import board_of
from coldtune.studies.space.space import Space
from coldtune.studies.spec.folder import StudyFolder
from coldtune.studies.storage.backends import open_storage
from coldtune.studies.trials.ledger import Ledger, open_study


def read(folder: StudyFolder) -> Ledger:
    """The ledger of a study that was started; ValueError where its dataset is no longer in the home."""
    spec, start = folder.spec(), folder.start()
    for path in prepared(folder.home, spec.base["data"]["name"]):
        dataset = Dataset.open(path)
        if dataset.fingerprint == start["fingerprint"]:
            space = Space(spec.space, spec.base, dataset.image_shape)
            storage = open_storage(folder.path, start["storage"])
            study = open_study(folder.name, spec, storage)
            hold = DriverLease(board_of(study, folder.path, start["storage"]))
            return Ledger(folder.name, spec, space, storage, hold=hold, reading=True, store=folder.store())
    raise ValueError(f"study {folder.name}: its dataset {spec.base['data']['name']} is no longer in {folder.home}/data")


def summary(folder: StudyFolder) -> tuple[str, str, str, str, str, str]:
    """Name, dataset, trials ended (and imported), trials wanted, the best value, and who runs it now, as text."""
    ledger, start = read(folder), folder.start()
    best, metric = ledger.best(), ledger.spec.objective.metric.upper()
    text = f"{metric} {best.values[0]:.4g} (trial {best.number})" if best else "-"
    dataset = str(ledger.spec.base["data"]["name"])
    ended = f"{ledger.finished()}" + (f" + {ledger.imported()} imported" if ledger.imported() else "")
    drivers = ledger.hold.others() if ledger.hold else []
    return folder.name, dataset, ended, str(start["trials"]), text, ", ".join(map(str, drivers)) or "-"

"""Reading a study without running it."""

from __future__ import annotations

from coldtune.data import Dataset, prepared
from coldtune.studies.folder import StudyFolder
from coldtune.studies.ledger import Ledger
from coldtune.studies.space import Space
from coldtune.studies.storage import open_storage


def read(folder: StudyFolder) -> Ledger:
    """The ledger of a study that was started; ValueError where its dataset is no longer in the home."""
    spec, start = folder.spec(), folder.start()
    for path in prepared(folder.home, spec.base["data"]["name"]):
        dataset = Dataset.open(path)
        if dataset.fingerprint == start["fingerprint"]:
            space = Space(spec.space, spec.base, dataset.image_shape)
            return Ledger(folder.name, spec, space, open_storage(folder.path, start["storage"]))
    raise ValueError(f"study {folder.name}: its dataset {spec.base['data']['name']} is no longer in {folder.home}/data")


def summary(folder: StudyFolder) -> tuple[str, str, str, str, str]:
    """Name, dataset, trials ended, trials wanted and the best value, as text."""
    ledger, start = read(folder), folder.start()
    best, metric = ledger.best(), ledger.spec.objective.metric.upper()
    text = f"{metric} {best.values[0]:.4g} (trial {best.number})" if best else "-"
    dataset = str(ledger.spec.base["data"]["name"])
    return folder.name, dataset, str(ledger.finished()), str(start["trials"]), text

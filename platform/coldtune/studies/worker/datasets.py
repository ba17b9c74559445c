"""The links from MLflow runs to the datasets that they use."""

from __future__ import annotations

from coldtune.data import Dataset
from coldtune.stages.chain import Chain
from coldtune.tracking import Tracker


def link_dataset(tracker: Tracker, data: Dataset, context: str = "training", split: str | None = None) -> None:
    """Link a dataset, or a split of it, to a run. Its digest is the fingerprint of the prepared dataset."""
    images = data.sizes if split is None else data.sizes[split]
    numbers = {"image_shape": list(data.image_shape), "classes": data.num_classes, "images": images}
    name = data.name if split is None else f"{data.name}/{split}"
    tracker.dataset(name, data.fingerprint, context, data.path, numbers)


def link_datasets(tracker: Tracker, chain: Chain) -> None:
    """Link the datasets from which a trial trains, on which it is judged, and from which its degradation draws."""
    link_dataset(tracker, chain.dataset)
    link_dataset(tracker, chain.dataset, "evaluation", chain.protocol.split)
    if chain.source is not None:
        link_dataset(tracker, chain.source, "degradation", "train")

"""What MLflow's pages show of a logged model: the parameters, the values and the description of its run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from coldtune.tracking.first_metrics import has_values
from coldtune.tracking.names import NOTE
from coldtune.tracking.spool import Record, Spool, has_form

_NOT_OF_THE_MODEL = "seconds/"


@dataclass
class ModelFacts:
    """The facts of a run that are facts of its model, too.

    Attributes:
        params: The parameters of the run.
        values: The records with the values of the finished trial. The model gets them with the times and steps of the
            run, so the run gets no value twice.
        dataset: Name and digest of the dataset on which the values were measured, or None.
        note: The description of the run.
    """

    params: dict[str, str] = field(default_factory=dict)
    values: list[Record] = field(default_factory=list)
    dataset: tuple[str, str] | None = None
    note: str = ""

    @classmethod
    def of(cls, spool: Spool) -> ModelFacts:
        """Read the facts from the journal of a run."""
        facts, offset = cls(), 0
        while True:
            records, offset = spool.read(offset)
            if not records:
                return facts
            for record, _ in records:
                if has_form(record):
                    facts._add(record)

    def _add(self, record: Record) -> None:
        if record["op"] == "params":
            self.params |= record["values"]
        elif record["op"] == "tags":
            self.note = record["values"].get(NOTE, self.note)
        elif record["op"] == "dataset" and record["context"] == "evaluation":
            self.dataset = record["name"], record["digest"]
        elif has_values(record):
            values = {key: v for key, v in record["values"].items() if not key.startswith(_NOT_OF_THE_MODEL)}
            self.values.append({**record, "values": values})

    def metrics(self, model_id: str) -> list[Any]:
        """Return the values as metrics of MLflow, linked to the model and to the dataset."""
        from mlflow.entities import Metric

        name, digest = self.dataset or (None, None)
        return [
            Metric(key, float(value), record["time"], record["step"], model_id, name, digest)
            for record in self.values
            for key, value in record["values"].items()
        ]

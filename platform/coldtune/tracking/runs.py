"""MLflow runs, found by study and trial, and the effect of each spool record on them.

A spool can be replayed safely, because every operation here is idempotent. Runs are searched by tag before they are
made, metric rows have the time at which they were measured, and parameters are never changed.
"""

from __future__ import annotations

import getpass
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from coldtune.tracking import server
from coldtune.tracking.model_facts import ModelFacts
from coldtune.tracking.names import NOTE
from coldtune.tracking.spool import Record

TAG_STUDY = "coldtune.study"
TAG_STUDY_ID = "coldtune.study_id"
TAG_TRIAL = "coldtune.trial"
TAG_KIND = "coldtune.kind"
TAG_STATE = "coldtune.state"
TAG_REASON = "coldtune.reason"
TAG_PROTOCOL = "protocol"
_HASHES = (TAG_PROTOCOL, TAG_STUDY_ID)
_TAG_PARENT = "mlflow.parentRunId"
TAG_IMAGES = "mlflow.loggedImages"

# A pruned trial has ended as planned, so MLflow shows FINISHED. The tag coldtune.state tells it from a finished trial.
# A run that is KILLED may be resumed.
STATUSES = {"finished": "FINISHED", "pruned": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}
_SAME_NAME = 1000  # at most so many runs of equal name are looked at
_GONE = "RESOURCE_DOES_NOT_EXIST"
# MLflow's error codes for records that it will never accept. After any other error, a record may be accepted later.
_REFUSALS = {"INVALID_PARAMETER_VALUE", "MALFORMED_REQUEST", "INVALID_STATE"}


@dataclass(frozen=True)
class Identity:
    """The study and trial that a run belongs to.

    Attributes:
        trial: None for the study's own run, which is the parent of its trials' runs.
        study_id: The identity of the study, which tells it from another study of the same name. "" for a study of an
            older version, whose runs are found by name.
    """

    study: str
    trial: int | None
    study_id: str = ""

    def tags(self) -> dict[str, str]:
        """Return the tags by which the run is found."""
        kind = {TAG_STUDY: self.study, TAG_KIND: "study" if self.trial is None else "trial"}
        known = {TAG_STUDY_ID: self.study_id} if self.study_id else {}
        return kind | known | ({} if self.trial is None else {TAG_TRIAL: str(self.trial)})


class RefusedError(Exception):
    """The server will never take this record."""


class RunGoneError(Exception):
    """The server does not know the run any more, because it was deleted or the database was replaced."""


class Runs:
    """The runs of an experiment, by an MLflow client with explicit run ids and never MLflow's global active run."""

    def __init__(self, target: server.Target) -> None:
        self.target = target
        self.answering = False  # whether the server answered the last request
        self._client = server.client(target.uri)
        self._seen: set[str] = set()

    def find(self, identity: Identity) -> str | None:
        """Return the id of the run of `identity`, or None. Deleted runs are not found.

        A study without an identity never finds the run of a study that has one.
        """
        clauses = [f"tags.`{key}` = '{value}'" for key, value in identity.tags().items()]
        matches = self._client.search_runs(
            [self.target.experiment_id],
            " AND ".join(clauses),
            max_results=_SAME_NAME,
            order_by=["attributes.start_time ASC"],
        )
        self.answering = True
        own = (run for run in matches if run.data.tags.get(TAG_STUDY_ID, "") == identity.study_id)
        return next((str(run.info.run_id) for run in own), None)

    def create(self, identity: Identity, record: Record, parent: str | None) -> str:
        """Create the run that a `create` record describes, as a child of the run `parent`. Return its id.

        MLflow shows tags in the order in which it received them. So the tags by which the run is found come after the
        tags that people read, and hashes are last.
        """
        tags = {"mlflow.user": _user(), **record["tags"], **identity.tags(), TAG_STATE: "running"}
        tags = dict(sorted(tags.items(), key=lambda tag: (tag[0] in _HASHES, tag[0].startswith("coldtune."))))
        if parent is not None:
            tags[_TAG_PARENT] = parent
        run = self._client.create_run(
            self.target.experiment_id, start_time=record["time"], tags=tags, run_name=record["name"]
        )
        return str(run.info.run_id)

    def log(self, run_id: str, records: Sequence[Record]) -> None:
        """Send metrics, parameters and tags together. MLflow splits a batch that is larger than it allows."""
        from mlflow.entities import Metric, Param, RunTag

        metrics, params, tags = [], [], {}
        for record in records:
            values = record["values"].items()
            if record["op"] == "metrics":
                metrics += [Metric(key, float(value), record["time"], record["step"]) for key, value in values]
            elif record["op"] == "params":
                params += [Param(key, value) for key, value in values]
            else:
                tags.update(values)
        with self._request(run_id):
            self._client.log_batch(run_id, metrics, params, [RunTag(key, value) for key, value in tags.items()])

    def artifact(self, run_id: str, path: str, folder: str) -> None:
        """Upload a file into a folder of the run's artifacts ("" is the root)."""
        with self._request(run_id):
            self._client.log_artifact(run_id, path, folder or None)

    def model(self, run_id: str, packed: Path, name: str, facts: ModelFacts) -> None:
        """Upload a model, packed as a ZIP file, as a logged model of a run. A model that is complete stays as it is."""
        from mlflow.entities import LoggedModelOutput, LoggedModelStatus

        experiment = self.target.experiment_id
        with self._request(run_id):
            wanted = f"name = '{name}' AND source_run_id = '{run_id}'"
            found = list(self._client.search_logged_models([experiment], filter_string=wanted))
            if any(model.status == LoggedModelStatus.READY for model in found):
                return
            model = (
                found[0]
                if found
                else self._client.create_logged_model(
                    experiment, name, source_run_id=run_id, params=facts.params, tags={NOTE: facts.note}
                )
            )
            with tempfile.TemporaryDirectory() as scratch:
                shutil.unpack_archive(packed, scratch, "zip")
                self._client.log_model_artifacts(model.model_id, scratch)
            self._client.log_batch(run_id, facts.metrics(model.model_id))
            self._client.log_outputs(run_id, [LoggedModelOutput(model.model_id, 0)])
            self._client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)

    def dataset(self, run_id: str, record: Record) -> None:
        """Link a dataset to a run. The same dataset is linked once, however often this is called."""
        from mlflow.entities import Dataset, DatasetInput, InputTag
        from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

        parts = {name: record[name] for name in ("name", "digest", "source_type", "source", "profile")}
        given = DatasetInput(Dataset(**parts), [InputTag(MLFLOW_DATASET_CONTEXT, record["context"])])
        with self._request(run_id):
            self._client.log_inputs(run_id, [given])

    def end(self, run_id: str, record: Record) -> None:
        """Set the run's final status, with the time and the reason of the record."""
        tags = {TAG_STATE: record["status"]}
        if reason := record.get("reason"):
            tags |= {TAG_REASON: reason, NOTE: f"**{record['status'].capitalize()}**: {reason}"}
        self.log(run_id, [{"op": "tags", "values": tags}])
        with self._request(run_id):
            self._client.set_terminated(run_id, STATUSES[record["status"]], record["time"])

    def resume(self, run_id: str) -> None:
        """Set an ended run to running again, and clear the reason why it had ended."""
        with self._request(run_id):
            run = self._client.get_run(run_id)
        tags = {TAG_STATE: "running"} | {key: "" for key in (TAG_REASON, NOTE) if TAG_REASON in run.data.tags}
        self.log(run_id, [{"op": "tags", "values": tags}])
        with self._request(run_id):
            if run.info.status != "RUNNING":
                self._client.update_run(run_id, status="RUNNING")

    def known(self, run_id: str) -> bool:
        """Return True if the server knows this run. The server is asked only until it says so."""
        if run_id not in self._seen and self.alive(run_id):
            self._seen.add(run_id)
        return run_id in self._seen

    def forget(self) -> None:
        """Make `known` ask the server again about every run, because the server has lost a run."""
        self._seen.clear()

    def reachable(self) -> bool:
        """Return True if the server answers."""
        try:
            self._client.get_experiment(self.target.experiment_id)
        except Exception:
            return False
        return True

    @contextmanager
    def _request(self, run_id: str) -> Iterator[None]:
        """Raise RefusedError or RunGoneError if a request will never succeed, and note whether it was answered.

        MLflow refuses every record of a deleted run. The run may be made again, so its records are not set aside.
        """
        try:
            yield
        except Exception as error:
            code = getattr(error, "error_code", None)
            self.answering = code == _GONE or code in _REFUSALS
            if code == _GONE or (code in _REFUSALS and self._is_deleted(run_id)):
                raise RunGoneError(str(error)) from error
            if code in _REFUSALS:
                raise RefusedError(str(error).strip()[:500]) from error
            raise
        self.answering = True

    def alive(self, run_id: str) -> bool:
        """Return True if the server answers and has this run, and the run is not deleted."""
        try:
            return bool(self._client.get_run(run_id).info.lifecycle_stage == "active")
        except Exception:
            return False

    def _is_deleted(self, run_id: str) -> bool:
        try:
            return bool(self._client.get_run(run_id).info.lifecycle_stage == "deleted")
        except Exception:
            return False


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # in a container whose user id has no name
        return "unknown"

"""The best restorer of a study in MLflow's model registry."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from coldtune.addresses import redact
from coldtune.tracking.server import Target, client
from coldtune.tracking.spool import STUDY, Spool

_URI = "MLFLOW_TRACKING_URI"


def register_model(target: Target, study: str, spool: Path, name: str) -> str:
    """Put the newest logged model of a study into the registry, as the next version of `name`.

    A model that is registered under this name already keeps its version.

    Returns:
        The version.

    Raises:
        ValueError: If the study has no logged model on the server, or the registry refuses the name.
    """
    from mlflow.exceptions import MlflowException

    parent = Spool(spool, STUDY).state(target.key, target.born).run_id
    mlflow = client(target.uri)
    try:
        model = None if parent is None else _newest_model(mlflow, target, parent)
        if model is None:
            raise ValueError(
                f"{study}: has no logged model on {redact(target.uri)}. A study that finishes logs the restorer of its "
                "best trial; `coldtune tracking sync` delivers a model that is still in the spool"
            )
        source = f"models:/{model.model_id}"
        try:
            mlflow.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        for version in mlflow.search_model_versions(f"name = '{name}'"):
            if version.source == source:
                return str(version.version)
        with _global_uri(target.uri):
            made = mlflow.create_model_version(name, source, run_id=model.source_run_id, model_id=model.model_id)
        return str(made.version)
    except MlflowException as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"the registry on {redact(target.uri)} refuses {name!r}: {redact(first[:300])}") from None


@contextmanager
def _global_uri(uri: str) -> Iterator[None]:
    """Set MLflow's global tracking URI while the block runs, because its registry looks for logged models there."""
    before = os.environ.get(_URI)
    os.environ[_URI] = uri
    try:
        yield
    finally:
        del os.environ[_URI]
        if before is not None:
            os.environ[_URI] = before


def _newest_model(mlflow: Any, target: Target, parent: str) -> Any:
    """Return the newest complete model of the trials of the study whose own run is `parent`, or None."""
    runs = mlflow.search_runs([target.experiment_id], f"tags.`mlflow.parentRunId` = '{parent}'", max_results=50_000)
    own = {run.info.run_id for run in runs}
    newest_first = [{"field_name": "creation_timestamp", "ascending": False}]
    token = None
    while True:
        page = mlflow.search_logged_models([target.experiment_id], order_by=newest_first, page_token=token)
        for model in page:
            if model.source_run_id in own and str(model.status) == "READY":
                return model
        if not (token := page.token):
            return None

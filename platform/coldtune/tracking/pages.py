"""Where a browser finds a study: the list of its trials, with the columns that its question is about."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from coldtune.tracking.runs import TAG_KIND, TAG_STUDY
from coldtune.tracking.server import Target, client
from coldtune.tracking.uris import SERVERS, shown

_VIEW = "mlflow.sharedViewState."
_MAX_VIEW = 5000  # characters of an experiment's tag


def trials_page(
    target: Target, study: str, params: Sequence[str] = (), metrics: Sequence[str] = ("fid",), *, minimize: bool = True
) -> str:
    """The address of MLflow's list of a study's trials, best of the first metric on top, once `ui_command` runs.

    MLflow lists no parameter and no metric by itself; which of them it shows is a view, kept as a tag of the experiment
    and named in the address. Where it cannot be kept (the server is away), the address has the filter and order alone.
    """
    state: dict[str, Any] = {
        "searchFilter": f"tags.`{TAG_STUDY}` = '{study}' and tags.`{TAG_KIND}` = 'trial'",
        "orderByKey": f"metrics.`{metrics[0]}`",
        "orderByAsc": minimize,
    }
    columns = [*(f"params.`{name}`" for name in params), *(f"metrics.`{name}`" for name in metrics)]
    query = {"viewStateShareKey": study}
    if not _keep(target, study, {**state, "selectedColumns": columns}):
        query = {**state, "orderByAsc": str(minimize).lower()}
    base = shown(target.uri) if urlsplit(target.uri).scheme in SERVERS else "http://127.0.0.1:5000"
    asked = urlencode({"workflowType": "machine_learning", **query}, quote_via=quote)
    return f"{base}/#/experiments/{target.experiment_id}/runs?{asked}"


def _keep(target: Target, study: str, state: dict[str, Any]) -> bool:
    """Keep a view; False where that fails, whichever way: it is decoration."""
    text = json.dumps(state)
    if len(text) > _MAX_VIEW:
        return False
    try:
        client(target.uri).set_experiment_tag(target.experiment_id, f"{_VIEW}{study}", text)
    except Exception:
        return False
    return True

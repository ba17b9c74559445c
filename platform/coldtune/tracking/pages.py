"""The address of a study's trials in MLflow's pages, with the columns that the study compares."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from coldtune.addresses import redact
from coldtune.tracking.runs import TAG_KIND, TAG_STUDY, TAG_STUDY_ID
from coldtune.tracking.server import Target, client, ui_port
from coldtune.tracking.uris import SERVERS

# By default, MLflow's pages show neither parameters nor metrics as columns, and an address can select columns only by
# naming a shared view. The tag of a shared view is not documented. If a later MLflow ignores it, the page opens with
# the default columns.
_VIEW_TAG = "mlflow.sharedViewState."
_MAX_TAG = 5000  # characters that MLflow allows in the tag of an experiment


def trials_page(
    target: Target,
    study: str,
    params: Sequence[str] = (),
    metrics: Sequence[str] = ("fid",),
    *,
    minimize: bool = True,
    study_id: str = "",
    group_by: str | None = None,
) -> str:
    """Return the address of a study's trials in MLflow's pages, sorted by the first metric with the best on top.

    The columns are saved as a shared view, a tag of the experiment that the address names. If the view cannot be saved,
    for example in an outage, the address contains the filter and the order only. The address works while the server (or
    `ui_command`) runs.

    Args:
        params: The parameters to show as columns.
        metrics: The metrics to show as columns.
        minimize: Whether small values of the first metric are good.
        study_id: The identity of the study, if it has one. Another study of the same name is then left out.
        group_by: A tag. The page shows the runs with an equal tag as a group, with the means of their metrics.
    """
    own = f" and tags.`{TAG_STUDY_ID}` = '{study_id}'" if study_id else ""
    view = f"{study} {study_id[:8]}" if study_id else study
    state: dict[str, Any] = {
        "searchFilter": f"tags.`{TAG_STUDY}` = '{study}'{own} and tags.`{TAG_KIND}` = 'trial'",
        "orderByKey": f"metrics.`{metrics[0]}`",
        "orderByAsc": minimize,
    }
    groups: dict[str, Any] = {}
    if group_by is not None:
        keys = [{"mode": "tag", "groupByData": group_by}]
        groups = {"groupBy": {"aggregateFunction": "average", "groupByKeys": keys}}
    columns = [*(f"params.`{name}`" for name in params), *(f"metrics.`{name}`" for name in metrics)]
    query = {"viewStateShareKey": view}
    if not _save_view(target, view, {**state, **groups, "selectedColumns": columns}):
        query = {**state, "orderByAsc": str(minimize).lower()}
    base = redact(target.uri) if urlsplit(target.uri).scheme in SERVERS else f"http://127.0.0.1:{ui_port()}"
    parameters = urlencode({"workflowType": "machine_learning", **query}, quote_via=quote)
    return f"{base}/#/experiments/{target.experiment_id}/runs?{parameters}"


def _save_view(target: Target, name: str, state: dict[str, Any]) -> bool:
    """Save a view. Return False if that fails for any reason, because the page is useful without it."""
    text = json.dumps(state)
    if len(text) > _MAX_TAG:
        return False
    try:
        client(target.uri).set_experiment_tag(target.experiment_id, f"{_VIEW_TAG}{name}", text)
    except Exception:
        return False
    return True

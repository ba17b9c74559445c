"""The addresses of a study in MLflow's pages: its trials with the columns that it compares, its charts, its own run."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
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
_TRAINING_VIEW = {"workflowType": "machine_learning"}  # MLflow opens its pages for language models otherwise
# The sections of the charts. MLflow would sort them by name, and adds a section for every other prefix at the end.
_PICTURES = "samples"
_SECTIONS = (
    "objective", _PICTURES, "sampled", "direct", "train", "sampled/naive", "x_T", "sampled/interval", "seconds",
)  # fmt: skip
# Pages are narrow beside the list of runs, and these charts need width.
_WIDE = {"objective": {"columns": 1, "cardHeight": 280}, _PICTURES: {"columns": 1, "cardHeight": 500}}
SAMPLES = {"sampled": "samples/sampled", "path": "samples/path"}
"""The keys of a trial's pictures: its sampled images, and their path from x_T."""


@dataclass(frozen=True)
class TrialsPage:
    """The page of a study's trials in MLflow, sorted by the first metric with the best on top.

    Attributes:
        study: The name of the study.
        params: The parameters to show as columns.
        metrics: The metrics to show as columns.
        minimize: Whether small values of the first metric are good.
        study_id: The identity of the study, if it has one. Another study of the same name is then left out.
        group_by: A tag. The page shows the runs with an equal tag as a group, with the means of their metrics.
        partial: The parameters that some trials lack. MLflow's parallel coordinates leave out a run that lacks a
            parameter, so the chart has the other parameters only.
    """

    study: str
    params: Sequence[str] = ()
    metrics: Sequence[str] = ("fid",)
    minimize: bool = True
    study_id: str = ""
    group_by: str | None = None
    partial: Collection[str] = ()

    def save(self, target: Target) -> bool:
        """Save the columns and the charts as a shared view, which is a tag of the experiment.

        Returns:
            False if that fails for any reason, for example in an outage.
        """
        groups: dict[str, Any] = {}
        if self.group_by is not None:
            keys = [{"mode": "tag", "groupByData": self.group_by}]
            groups = {"groupBy": {"aggregateFunction": "average", "groupByKeys": keys}}
        columns = [*(f"params.`{name}`" for name in self.params), *(f"metrics.`{name}`" for name in self.metrics)]
        state = {
            **self._filter(),
            **groups,
            "selectedColumns": columns,
            **_charts(
                [name for name in self.params if name not in self.partial], self.metrics[0], self.group_by is not None
            ),
        }
        return _save_view(target, self._view(), state)

    def address(self, target: Target, view: bool) -> str:
        """Return the address of the page. It works while the server (or `ui_command`) runs.

        Args:
            view: Whether the view was saved. Otherwise the address has the filter and the order only.
        """
        query = {"viewStateShareKey": self._view()}
        if not view:
            query = {**self._filter(), "orderByAsc": str(self.minimize).lower()}
        return f"{_runs_address(target)}?{urlencode({**_TRAINING_VIEW, **query}, quote_via=quote)}"

    def _view(self) -> str:
        return f"{self.study} {self.study_id[:8]}" if self.study_id else self.study

    def _filter(self) -> dict[str, Any]:
        own = f" and tags.`{TAG_STUDY_ID}` = '{self.study_id}'" if self.study_id else ""
        return {
            "searchFilter": f"tags.`{TAG_STUDY}` = '{self.study}'{own} and tags.`{TAG_KIND}` = 'trial'",
            "orderByKey": f"metrics.`{self.metrics[0]}`",
            "orderByAsc": self.minimize,
        }


def charts_page(trials: str) -> str:
    """Return the address that shows the trials of the address `trials` as charts, the objective first."""
    return f"{trials}&compareRunsMode=CHART"


def run_page(target: Target, run_id: str) -> str:
    """Return the address of a run in MLflow's pages."""
    return f"{_runs_address(target)}/{run_id}?{urlencode(_TRAINING_VIEW)}"


def _runs_address(target: Target) -> str:
    base = redact(target.uri) if urlsplit(target.uri).scheme in SERVERS else f"http://127.0.0.1:{ui_port()}"
    return f"{base}/#/experiments/{target.experiment_id}/runs"


def _charts(params: Sequence[str], metric: str, grouped: bool) -> dict[str, Any]:
    """Return the charts of a view: first the objective, by run and over the parameters, then pictures of each run.

    MLflow adds the charts of all other metrics to the sections by itself. It shows no pictures of a group of runs, so
    the section of pictures is closed if the page groups runs.
    """
    made = {"deleted": False, "isGenerated": True}
    first = {**made, "metricSectionId": _section_id("objective")}
    bars = {**first, "type": "BAR", "uuid": "coldtune-bars", "metricKey": metric, "displayName": metric}
    parallel = {
        **first, "type": "PARALLEL", "uuid": "coldtune-parallel", "isGenerated": False,
        "selectedParams": list(params), "selectedMetrics": [metric], "showAllRuns": True,
    }  # fmt: skip
    # One chart has a column for each run. MLflow would add a chart for each key if there were none, even a removed one.
    keys = list(SAMPLES.values())
    grid = {**made, "type": "IMAGE", "metricSectionId": _section_id(_PICTURES), "step": 0, "showRunParams": False}
    pictures = [
        {**grid, "uuid": "coldtune-pictures", "imageKeys": keys, "isGenerated": False},
        *({**grid, "uuid": f"coldtune-{key}", "imageKeys": [key], "deleted": True} for key in keys),
    ]
    return {
        "compareRunCharts": [bars, *([parallel] if params else []), *pictures],
        "compareRunSections": [
            {
                **made,
                "uuid": _section_id(name),
                "name": name,
                "display": not (grouped and name == _PICTURES),
                "isReordered": False,
            }
            | _WIDE.get(name, {})
            for name in _SECTIONS
        ],
        "isAccordionReordered": True,
        "hideEmptyCharts": True,
    }


def _section_id(name: str) -> str:
    return f"coldtune-section-{name}"


def _save_view(target: Target, name: str, state: dict[str, Any]) -> bool:
    """Save a view. Return False if that fails for any reason, because the page is useful without it."""
    text = json.dumps(state)
    if len(text) > _MAX_TAG:  # MLflow's pages compress long views in this way
        text = f"deflate;{base64.b64encode(zlib.compress(text.encode())).decode()}"
    if len(text) > _MAX_TAG:
        return False
    try:
        client(target.uri).set_experiment_tag(target.experiment_id, f"{_VIEW_TAG}{name}", text)
    except Exception:
        return False
    return True

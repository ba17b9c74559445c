"""Names in MLflow. Its chart view makes a section of each prefix of a metric, and sorts the sections."""

from __future__ import annotations

from collections.abc import Collection, Mapping

NOTE = "mlflow.note.content"
"""The tag that MLflow shows as the description of a run or a model, in Markdown."""

# By suffix of a trial's metric: the section of that set of images.
_SETS = {"_direct": "direct", "_naive": "sampled/naive", "_degraded": "x_T"}
_BOUNDS = ("_low", "_high")
# The metrics of the sets that are not the trial's own. All others are in the artifacts `judged/SET/metrics.json`.
_COMPARED = ("fid", "rmse", "ssim")


def mlflow_name(metric: str) -> str:
    """Return the name in MLflow of a trial's metric: `fid` becomes `sampled/fid`, `fid_direct` becomes `direct/fid`."""
    for suffix, section in _SETS.items():
        if metric.endswith(suffix):
            return f"{section}/{metric.removesuffix(suffix)}"
    return f"sampled/interval/{metric}" if metric.endswith(_BOUNDS) else f"sampled/{metric}"


def chosen_metrics(metrics: Mapping[str, float], objectives: Collection[str] = ()) -> dict[str, float]:
    """Return the metrics of a trial that MLflow shows, the objectives first.

    They are few, because MLflow draws a chart for each. They are all values of the trial's own sampler, FID, RMSE and
    SSIM of the other sets, and the intervals of FID and of the objectives.
    """
    first = {metric: metrics[metric] for metric in objectives if metric in metrics}
    return first | {name: value for name, value in metrics.items() if _is_shown(name, objectives)}


def _is_shown(metric: str, objectives: Collection[str]) -> bool:
    if metric in objectives:
        return True
    for suffix in _SETS:
        if metric.endswith(suffix):
            return metric.removesuffix(suffix) in _COMPARED
    for bound in _BOUNDS:
        if metric.endswith(bound):
            return metric.removesuffix(bound) in {"fid", *objectives}
    return True


def trial_metrics(metrics: Mapping[str, float], objectives: Collection[str] = ()) -> dict[str, float]:
    """Return the metrics of a finished trial under their names in MLflow, the objectives first."""
    return {mlflow_name(name): value for name, value in chosen_metrics(metrics, objectives).items()}

"""MLflow runs that survive crashes and outages. Each run has a durable spool, which is delivered in the background.

MLflow is imported only when a record is delivered or a tracking URI is checked.
"""

from coldtune.tracking.drain import Drained, Drainer, drain, pending
from coldtune.tracking.logged import logged_file
from coldtune.tracking.names import NOTE, chosen_metrics, mlflow_name, trial_metrics
from coldtune.tracking.pages import SAMPLES, TrialsPage, charts_page, run_page
from coldtune.tracking.registry import register_model
from coldtune.tracking.runs import TAG_PROTOCOL, TAG_STUDY_ID
from coldtune.tracking.server import Target, check_server, default_uri, prepare, ui_command
from coldtune.tracking.spool import find_trial_of_run
from coldtune.tracking.tracker import Status, Tracker

__all__ = [
    "NOTE",
    "SAMPLES",
    "TAG_PROTOCOL",
    "TAG_STUDY_ID",
    "Drained",
    "Drainer",
    "Status",
    "Target",
    "Tracker",
    "TrialsPage",
    "charts_page",
    "check_server",
    "chosen_metrics",
    "default_uri",
    "drain",
    "find_trial_of_run",
    "logged_file",
    "mlflow_name",
    "pending",
    "prepare",
    "register_model",
    "run_page",
    "trial_metrics",
    "ui_command",
]

"""MLflow runs that survive crashes and outages. Each run has a durable spool, which is delivered in the background.

MLflow is imported only when a record is delivered or a tracking URI is checked.
"""

from coldtune.tracking.drain import Drained, Drainer, drain, pending
from coldtune.tracking.logged import logged_file
from coldtune.tracking.pages import trials_page
from coldtune.tracking.runs import NOTE, TAG_STUDY_ID
from coldtune.tracking.server import Target, check_server, default_uri, prepare, ui_command
from coldtune.tracking.tracker import Status, Tracker

__all__ = [
    "NOTE",
    "TAG_STUDY_ID",
    "Drained",
    "Drainer",
    "Status",
    "Target",
    "Tracker",
    "check_server",
    "default_uri",
    "drain",
    "logged_file",
    "pending",
    "prepare",
    "trials_page",
    "ui_command",
]

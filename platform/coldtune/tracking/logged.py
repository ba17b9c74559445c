"""Reading back what a trial's run holds."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from coldtune.tracking.runs import TAG_KIND, TAG_STATE, TAG_STUDY
from coldtune.tracking.server import client
from coldtune.tracking.uris import UnusableError, checked, shown


def logged_file(run_id: str, name: str, uris: Sequence[str]) -> str:
    """The text of the file `name` at the root of a trial's artifacts; the run is looked for at each of `uris`.

    ValueError, within seconds, where no such run is there, a URI cannot be used, or the run is no trial's or holds no
    such file.
    """
    for uri in uris:
        run = _run(run_id, uri)
        if run is not None:
            return _text(run, name, uri)
    places = ", ".join(map(shown, uris)) or "nowhere, this home has no tracking store"
    raise ValueError(f"{run_id}: no such MLflow run (looked in: {places}); name another store with --tracking-uri")


def _run(run_id: str, uri: str) -> Any:
    """The run, or None where the store does not know it."""
    from mlflow.exceptions import MlflowException

    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).is_file():
        raise ValueError(f"tracking URI = {uri!r}: no such database")  # MLflow would make one
    try:
        return client(checked(uri)).get_run(run_id)
    except UnusableError as why:
        raise ValueError(f"tracking URI = {shown(uri)!r}: {shown(str(why))}") from None
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise ValueError(f"tracking URI = {shown(uri)!r}: {_line(error)}") from None


def _text(run: Any, name: str, uri: str) -> str:
    run_id, tags = run.info.run_id, run.data.tags
    if tags.get(TAG_KIND) != "trial":
        study = f"that of study {tags[TAG_STUDY]}" if TAG_STUDY in tags else "not one of coldtune's"
        raise ValueError(f"{run_id}: this run is {study}; name a trial's")
    try:
        with tempfile.TemporaryDirectory() as scratch:
            return Path(client(checked(uri)).download_artifacts(run_id, name, scratch)).read_text()
    except Exception as error:  # MLflow's, its database's, the file system's or a server's
        state = tags.get(TAG_STATE, "unknown")
        raise ValueError(
            f"{run_id}: its {name} cannot be had ({_line(error)}); the trial's state is {state!r}, and what a finished "
            "one left in the spool is delivered by `coldtune tracking sync`"
        ) from None


def _line(error: Exception) -> str:
    return shown((str(error).strip().splitlines() or [type(error).__name__])[0][:200])

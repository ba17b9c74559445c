"""The options of a run: each is written down once, with its flag, its default and whether a resumed study keeps it."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any

from coldtune.durations import parse_duration


@dataclass(frozen=True)
class Flag:
    """The command-line flag of an option.

    Attributes:
        name: As it is typed, such as `--trial-timeout`.
        help: One line for `--help`, which says the default.
        metavar: The placeholder of the value in `--help`. None makes the flag a switch.
        type: Converts the text of the command line, and the value of start.json.
        read: Converts the text later, given the flag's name too, if its error should be a ValueError of ours.
        kept: True if `start.json` keeps the option, so that `coldtune study resume` uses it again.
    """

    name: str
    help: str
    metavar: str | None = None
    type: Callable[[str], Any] = str
    read: Callable[[str, str], Any] | None = None
    kept: bool = False

    def add_to(self, parser: argparse.ArgumentParser, dest: str) -> None:
        """Add the flag to `parser`. An option that is not given stays None, so that its default is written once."""
        if self.metavar is None:
            parser.add_argument(self.name, action="store_true", default=None, dest=dest, help=self.help)
        else:
            parser.add_argument(self.name, type=self.type, metavar=self.metavar, dest=dest, help=self.help)


def _option(default: Any, *about: Any, **more: Any) -> Any:
    return field(default=default, metadata={"flag": Flag(*about, **more)})


def _flags(cls: Any) -> Iterator[tuple[Field[Any], Flag]]:
    for one in fields(cls):
        if (flag := one.metadata.get("flag")) is not None:
            yield one, flag


@dataclass(frozen=True)
class Limits:
    """The limits at which a study gives up. They do not change what the study is.

    Attributes:
        retries: How often a trial whose process died is started again. It resumes from its last checkpoint.
        max_failures: The study stops after this many trials in a row have failed. 0 means that it never stops.
        trial_timeout: Seconds that a trial may run, waiting not counted, before it counts as failed. None: no limit.
        patience: Seconds to wait while the cluster is too small for a single trial.
    """

    retries: int = _option(2, "--retries", "of a trial whose process died (default 2)", "N", int)
    max_failures: int = _option(
        5, "--max-failures", "in a row that stop the study (default 5; 0: never)", "N", int
    )  # fmt: skip
    trial_timeout: float | None = _option(
        None, "--trial-timeout", "of one trial, such as 30m or 1h30m (default: none)", "TIME", read=parse_duration
    )
    patience: float = _option(
        600.0, "--wait-for-nodes", "while the cluster is too small for even one trial (default 10m)", "TIME",
        read=parse_duration,
    )  # fmt: skip

    def __post_init__(self) -> None:
        for flag, value in (("--retries", self.retries), ("--max-failures", self.max_failures)):
            if value < 0:
                raise ValueError(f"{flag} {value}: 0 or more")


@dataclass(frozen=True)
class RunOptions:
    """How a study is run. None of the options changes what the study is.

    A new option is one field here, and one row of the table in docs/studies.md.

    Attributes:
        command: The command line that a person types to run this again.
        default_trials: How many trials the job asks if neither `--trials` nor an earlier start says it.
        begun: When this process began, by `time.monotonic`.
    """

    home: Path = field(
        metadata={"flag": Flag("--home", "where everything is written (default $COLDTUNE_HOME or ./runs)", "DIR", Path)}
    )
    command: str
    trials: int | None = None
    default_trials: int = 12
    data_dir: Path | None = _option(  # noqa: RUF009 - `_option` is `dataclasses.field`
        None, "--data-dir", "where the dataset's published files lie", "PATH", Path, kept=True
    )
    name: str | None = _option(None, "--study", "the study's name (default: the job's and a hash of its spec)", "NAME")
    resume: bool = _option(False, "--resume", "go on with a study; an error if there is none")
    join: bool = _option(False, "--join", "if another driver runs the study already, run trials of it beside it")
    tracking_uri: str | None = _option(
        None, "--tracking-uri", "MLflow's (default: mlflow.db in the home)", "URI", kept=True
    )
    store: str | None = _option(
        None, "--store", "of finished work: a folder, s3://BUCKET/PREFIX, ... (default: store in the home)", "PLACE",
        kept=True,
    )  # fmt: skip
    storage: str | None = _option(
        None, "--storage", "Optuna's database (default: a journal file in the home)", "URL", kept=True
    )
    workers: int = _option(1, "--workers", "processes that train one trial (default 1)", "N", int, kept=True)
    gpus_per_trial: float = _option(
        0.0, "--gpus-per-trial", "may be a fraction (default 0)", "F", float, kept=True
    )  # fmt: skip
    limits: Limits = field(default_factory=Limits)
    begun: float = field(default_factory=time.monotonic)

    @staticmethod
    def add_flags(parser: argparse.ArgumentParser) -> None:
        """Add the flag of every option to a job's parser."""
        for cls in (RunOptions, Limits):
            for one, flag in _flags(cls):
                flag.add_to(parser, one.name)

    @classmethod
    def from_flags(cls, parsed: argparse.Namespace, **more: Any) -> RunOptions:
        """Build the options from a command line that was parsed with `add_flags`.

        Args:
            parsed: The command line. MLFLOW_TRACKING_URI stands for a `--tracking-uri` that is not given.
            more: The options that have no flag, and the home if `--home` is not given.

        Raises:
            ValueError: If a value is not allowed; the message names the flag.
        """
        given = {**more, **_given(cls, parsed)}
        if "tracking_uri" not in given and (uri := os.environ.get("MLFLOW_TRACKING_URI")):
            given["tracking_uri"] = uri
        given["home"] = given["home"].expanduser().absolute()
        return cls(**given, limits=Limits(**_given(Limits, parsed)))

    def to_start(self) -> dict[str, Any]:
        """Return what `start.json` keeps of the options, so that `coldtune study resume` runs the study alike."""
        kept = {one.name: getattr(self, one.name) for one, flag in _flags(type(self)) if flag.kept}
        kept = {name: str(value.absolute()) if isinstance(value, Path) else value for name, value in kept.items()}
        return {**kept, "limits": {one.name: getattr(self.limits, one.name) for one in fields(Limits)}}

    @classmethod
    def from_start(cls, home: Path, start: Mapping[str, Any], **more: Any) -> RunOptions:
        """Build the options with which a study was last started; `more` has the others.

        Options that an older version did not write have their defaults.
        """
        kept = {
            one.name: flag.type(start[one.name])
            for one, flag in _flags(cls)
            if flag.kept and start.get(one.name) is not None
        }
        return cls(home=home, command=start["command"], limits=Limits(**start.get("limits", {})), **kept, **more)


def _given(cls: Any, parsed: argparse.Namespace) -> dict[str, Any]:
    """Return the options of `cls` that the command line gives."""
    values = {one.name: (flag, getattr(parsed, one.name)) for one, flag in _flags(cls)}
    return {
        name: flag.read(flag.name, value) if flag.read else value
        for name, (flag, value) in values.items()
        if value is not None
    }

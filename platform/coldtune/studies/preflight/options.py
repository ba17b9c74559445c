"""The options of a run. Each is a single field, with its flag, its default and whether a resumed study keeps it."""

from __future__ import annotations

import argparse
import logging
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coldtune.addresses import Passwords, at_folder, has_password, password_hint, redact
from coldtune.durations import parse_duration
from coldtune.environment import expand_path

if TYPE_CHECKING:
    from coldtune.studies.spec.replicates import Racing

_MOST_FAILURES = 1_000_000  # and restarts of a trial

_LOG = logging.getLogger("coldtune.studies")


@dataclass(frozen=True)
class Flag:
    """The command-line flag of an option.

    Attributes:
        name: The flag as a user types it, such as `--trial-timeout`.
        help: A line for `--help`, with the default.
        metavar: The placeholder of the value in `--help`. None makes the flag a switch.
        type: Converts the text of the command line, and the value of start.json.
        read: Converts the text after the whole command line is parsed, from the name of the flag and the text. Use it
            instead of `type` if a wrong value should raise our own ValueError.
        kept: True if `start.json` keeps the option, so that `coldtune study resume` uses it again.
    """

    name: str
    help: str
    metavar: str | None = None
    type: Callable[[str], Any] = str
    read: Callable[[str, str], Any] | None = None
    kept: bool = False

    def add_to(self, parser: argparse.ArgumentParser, dest: str) -> None:
        """Add the flag to `parser`.

        The parser knows no default. An option that is not given is None there, so a default is written only once.

        Args:
            dest: The name of the option, under which the parser stores the value.
        """
        if self.metavar is None:
            parser.add_argument(self.name, action="store_true", default=None, dest=dest, help=self.help)
        else:
            parser.add_argument(self.name, type=self.type, metavar=self.metavar, dest=dest, help=self.help)


def _option(default: Any, *flag: Any, **more: Any) -> Any:
    return field(default=default, metadata={"flag": Flag(*flag, **more)})


def read_replicates(flag: str, text: str | None) -> int | Racing | None:
    """Return the number of trainings of each setting, or the race, that a flag says. None without the flag."""
    from coldtune.studies.spec.replicates import parse_replicates  # imported late, so that `--help` answers at once

    return None if text is None else parse_replicates(flag, text)


def _read_switch(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{value!r} is neither true nor false")
    return value


def _options(cls: Any) -> Iterator[tuple[Field[Any], Flag]]:
    for option in fields(cls):
        if (flag := option.metadata.get("flag")) is not None:
            yield option, flag


@dataclass(frozen=True)
class Limits:
    """The limits at which a study stops by itself. They do not change what the study is.

    Attributes:
        retries: How often a trial is restarted after its process died. It resumes from its last checkpoint.
        max_failures: The study stops after this many trials in a row have failed. 0 means that it never stops.
        trial_timeout: The seconds that a trial may run, without waiting, before it counts as failed. None means no
            limit.
        patience: The seconds to wait while the cluster is too small for a single trial.
    """

    retries: int = _option(2, "--retries", "restarts of a trial whose process died (default 2)", "N", int)
    max_failures: int = _option(
        5, "--max-failures", "failed trials in a row that stop the study (default 5, 0: never)", "N", int
    )
    trial_timeout: float | None = _option(
        None,
        "--trial-timeout",
        "longest run time of a trial, such as 30m or 1h30m (default: no limit)",
        "TIME",
        read=parse_duration,
    )
    patience: float = _option(
        600.0,
        "--wait-for-nodes",
        "longest wait while the cluster is too small for a single trial (default 10m)",
        "TIME",
        read=parse_duration,
    )

    def __post_init__(self) -> None:
        for flag, value in (("--retries", self.retries), ("--max-failures", self.max_failures)):
            if not 0 <= value <= _MOST_FAILURES:
                raise ValueError(f"{flag} {value}: 0 or more, and at most {_MOST_FAILURES:,}")


@dataclass(frozen=True)
class RunOptions:
    """How a study is run. No option changes what the study is.

    A new option is a field here, and a row in the table of docs/studies.md.

    Attributes:
        home: The folder in which everything is written.
        command: The command line that a person types to run this study again.
        trials: The number of trials in all. None means the number of the last start, or else the default.
        default_trials: The number of trials if neither `--trials` nor an earlier start says it.
        replicates: The trainings of each setting, or a race. None means the larger number of the last start and of the
            spec.
        confirm: The new trainings of the best settings of a search and of its base, which are judged on the test split
            after the search. 0 measures the best setting of the search on test instead.
        data_dir: The folder with the dataset's published files. None downloads them.
        name: The study's name. None means the job's name and a hash of the spec.
        resume: True if it is an error that the study does not exist yet.
        join: True to run trials beside another driver of the same study.
        retry_failed: True to ask every failed trial again. Without it, only trials that a fault of the machine made
            fail are asked again.
        by_name: True if `coldtune study resume` runs the study, perhaps from a folder in which `command` does not work.
        tracking_uri: MLflow's server or database. None means `mlflow.db` in the home.
        store: The place of finished work. None means `store` in the home.
        storage: Optuna's database. None means a journal in the home.
        password_file: The file with the passwords of `storage` and `tracking_uri`.
        equal_within: A difference of the objective that does not matter in verdicts. None means that of the spec.
        stop_when_settled: True to ask no further setting as soon as the search gains no more than its noise
            (`coldtune.studies.search.settled`).
        no_system_metrics: True to record no use of CPU, memory and GPU with a trial's run.
        workers: The processes that train a trial together.
        gpus_per_trial: The GPUs of a trial. A fraction lets several trials share a GPU.
        limits: The limits at which the study stops by itself.
        begun: The time at which this process began, by `time.monotonic`.
    """

    home: Path = field(
        metadata={
            "flag": Flag(
                "--home", "folder for everything that is written (default $COLDTUNE_HOME, ./runs)", "DIR", Path
            )
        }
    )
    command: str
    trials: int | None = None
    default_trials: int = 12
    replicates: int | Racing | None = _option(  # noqa: RUF009 - `_option` is `dataclasses.field`
        None,
        "--replicates",
        "trainings of each setting, with seeds one after the other; a larger number adds to a study. 2..10 races: all "
        "get 2, and undecided ones up to 10 (default: as in its last start, else as the space says, else 1)",
        "K",
        read=read_replicates,
    )
    confirm: int = _option(
        0,
        "--confirm",
        "after a search, train its winner, the next 2 settings and the base K times with new seeds, and judge them on "
        "the test split (default 0, unless the job says otherwise; 0: only measure the best setting on test)",
        "K",
        int,
        kept=True,
    )
    data_dir: Path | None = _option(  # noqa: RUF009 - `_option` is `dataclasses.field`
        None,
        "--data-dir",
        "folder with the dataset's published files (default: download them)",
        "PATH",
        Path,
        kept=True,
    )
    name: str | None = _option(
        None, "--study", "name of the study (default: the job's name and a hash of the spec)", "NAME"
    )
    resume: bool = _option(False, "--resume", "fail if the study does not exist yet")
    join: bool = _option(False, "--join", "if another driver already runs the study, run trials beside it")
    retry_failed: bool = _option(False, "--retry-failed", "ask every failed trial of the study again, once")
    tracking_uri: str | None = _option(
        None, "--tracking-uri", "MLflow's server or database (default: mlflow.db in the home)", "URI", kept=True
    )
    store: str | None = _option(
        None,
        "--store",
        "place of finished work: a folder, or for example s3://BUCKET/PREFIX (default: store in the home)",
        "PLACE",
        kept=True,
    )
    storage: str | None = _option(
        None, "--storage", "Optuna's database (default: a journal file in the home)", "URL", kept=True
    )
    password_file: Path | None = _option(  # noqa: RUF009 - `_option` is `dataclasses.field`
        None,
        "--password-file",
        "file with the passwords of --storage and --tracking-uri (default: PGPASSWORD, MLFLOW_TRACKING_PASSWORD, ...)",
        "FILE",
        Path,
        kept=True,
    )
    equal_within: float | None = _option(
        None,
        "--equal-within",
        "a difference of the objective that does not matter, so that settings can be practically equal (default: "
        "comparisons.equal_within of the space)",
        "D",
        float,
        kept=True,
    )
    stop_when_settled: bool = _option(
        False,
        "--stop-when-settled",
        "ask no more settings as soon as the search gains no more than its noise, before --trials are reached",
        type=_read_switch,
        kept=True,
    )
    no_system_metrics: bool = _option(
        False,
        "--no-system-metrics",
        "do not record the use of CPU, memory and GPU in MLflow every 10 s",
        type=_read_switch,
        kept=True,
    )
    workers: int = _option(1, "--workers", "processes that train a trial together (default 1)", "N", int, kept=True)
    gpus_per_trial: float = _option(
        0.0, "--gpus-per-trial", "GPUs of a trial, which may be a fraction (default 0)", "F", float, kept=True
    )
    by_name: bool = False
    limits: Limits = field(default_factory=Limits)
    begun: float = field(default_factory=time.monotonic)

    @property
    def fixed_replicates(self) -> int | None:
        """The fixed number of trainings of each setting that was asked for. None for a race, or if none was."""
        return self.replicates if isinstance(self.replicates, int) else None

    @property
    def race(self) -> Racing | None:
        """The race that was asked for, or None."""
        return None if isinstance(self.replicates, int) else self.replicates

    @staticmethod
    def add_flags(parser: argparse.ArgumentParser) -> None:
        """Add the flag of every option to a job's parser."""
        for cls in (RunOptions, Limits):
            for option, flag in _options(cls):
                flag.add_to(parser, option.name)

    @classmethod
    def from_flags(cls, parsed: argparse.Namespace, **more: Any) -> RunOptions:
        """Build the options from a command line that was parsed with `add_flags`.

        Args:
            parsed: The command line. If it has no `--tracking-uri`, MLFLOW_TRACKING_URI is used.
            more: The options that have no flag, and the home for a command line without `--home`.

        Raises:
            ValueError: If a value is not allowed. The message names the flag.
        """
        given = {**more, **_given_values(cls, parsed)}
        if "tracking_uri" not in given and (uri := os.environ.get("MLFLOW_TRACKING_URI")):
            given["tracking_uri"] = uri
        given["home"] = expand_path(given["home"], "--home")
        _complete_addresses(given, [name for name in _ADDRESSES if getattr(parsed, name, None)])
        return cls(**given, limits=Limits(**_given_values(Limits, parsed)))

    def to_start(self) -> dict[str, Any]:
        """Return the options that `start.json` keeps, with which `coldtune study resume` runs the study again."""
        kept = {option.name: getattr(self, option.name) for option, flag in _options(type(self)) if flag.kept}
        kept = {name: str(value.absolute()) if isinstance(value, Path) else value for name, value in kept.items()}
        return {**kept, "limits": {option.name: getattr(self.limits, option.name) for option in fields(Limits)}}

    @classmethod
    def from_start(cls, home: Path, start: Mapping[str, Any], **more: Any) -> RunOptions:
        """Build the options with which a study was last started.

        Args:
            home: The home of the study.
            start: The content of `start.json`. Options that an older version did not write have their defaults.
            more: The options that `start.json` does not keep.

        Raises:
            ValueError: If a value is missing or has the wrong type, or a limit is not known.
        """
        from pydantic import TypeAdapter  # imported late, so that `--help` answers at once

        if not start.get("command"):
            raise ValueError("`command` is missing, so start the study again with its own command")
        if unknown := set(start.get("limits", {})) - {option.name for option in fields(Limits)}:
            raise ValueError(f"limits.{min(unknown)} is an unknown key, perhaps of a newer version of coldtune")
        limits = TypeAdapter(Limits).validate_python(start.get("limits", {}))
        kept = {
            option.name: flag.type(start[option.name])
            for option, flag in _options(cls)
            if flag.kept and start.get(option.name) is not None
        }
        return cls(home=home, command=start["command"], limits=limits, **kept, **more)


_ADDRESSES = {"storage": "--storage", "tracking_uri": "--tracking-uri", "store": "--store"}
"""The options that are addresses, which may hold a password, with their flags."""


def _complete_addresses(given: dict[str, Any], typed: Collection[str]) -> None:
    """Make the addresses of a command line absolute, and add the passwords that they lack.

    Args:
        given: The options, which are changed.
        typed: The addresses that were typed, and not taken from the environment.

    Raises:
        ValueError: If an address is wrong. The message names the flag.
    """
    if password_file := given.get("password_file"):
        given["password_file"] = password_file.expanduser().absolute()
    passwords = Passwords.read(given.get("password_file"))
    for name, flag in _ADDRESSES.items():
        if not (address := given.get(name)):
            continue
        if name in typed and has_password(address):
            _warn_of_password(flag, address)
        if name == "store":
            continue  # `StoreLocation` makes it absolute
        try:
            address = at_folder(address, Path.cwd())
        except ValueError as error:
            raise ValueError(f"{flag} {redact(address)}: {error}") from None
        given[name] = passwords.complete(address, single=name == "storage" or not given.get("storage"))


def _warn_of_password(flag: str, address: str) -> None:
    instead = password_hint(address)
    if flag == "--store":
        instead = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    _LOG.warning("%s: other users of this machine can read the password in the command; %s", flag, instead)


def _given_values(cls: Any, parsed: argparse.Namespace) -> dict[str, Any]:
    """Return the options of `cls` that the command line sets."""
    values = {option.name: (flag, getattr(parsed, option.name)) for option, flag in _options(cls)}
    return {
        name: flag.read(flag.name, value) if flag.read else value
        for name, (flag, value) in values.items()
        if value is not None
    }

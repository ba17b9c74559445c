"""The flags of commands that work on a finished trial, and the trial that they refer to."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from coldtune.cli.common import add_store_flag, check_threads, find_home

if TYPE_CHECKING:
    from coldtune.stages.evaluate import FinishedTrial
    from coldtune.store.store import Store
    from coldtune.studies.trials.lookup import Home

RUN = """
RUN is STUDY/NUMBER, STUDY (its best trial), an MLflow run id, or a trial's config.yaml (or a folder that contains it).
"""


def add_run_flags(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Add RUN and the flags that find it to `parser`, and return the parser."""
    parser.add_argument("run", metavar="RUN", help="a finished trial, as described above")
    parser.add_argument("--data-dir", type=Path, metavar="PATH", help="folder with the dataset's published files")
    parser.add_argument(
        "--tracking-uri", metavar="URI", help="MLflow server on which a run id is looked up (default: the home's)"
    )
    return add_store_flag(parser)


def add_compute_flags(parser: argparse.ArgumentParser, threads: str) -> None:
    """Add `--device` and `--threads` to `parser`.

    Args:
        threads: What the help says about the default number of threads.
    """
    parser.add_argument("--device", help="cpu or cuda (default: cuda if available)")
    parser.add_argument(
        "--threads", type=int, metavar="N", help=f"CPU threads, which decide the last bits of a result ({threads})"
    )


def find_finished(
    options: argparse.Namespace, judges: bool = False, anew: bool = False
) -> tuple[FinishedTrial, Store, Home]:
    """Return the trial that RUN refers to, the store of its work, and the home in which it was looked up.

    Args:
        judges: True if the command runs the trial's extractor.
        anew: True if the command computes the trial anew.

    Raises:
        ValueError: If there is no such trial, it has not finished, or its extractor is code that the user did not
            allow.
    """
    from coldtune.cli.store_lookup import locate_store_of_trials
    from coldtune.metrics.extractors import check_origin
    from coldtune.store.store import Store
    from coldtune.studies.trials.lookup import Home, find_run

    path = find_home(options)
    location = locate_store_of_trials(path, [options.run], options.store)
    location.check()
    home = Home(path, options.data_dir, options.tracking_uri, location, anew)
    run = find_run(options.run, home)
    if judges:
        check_origin(run.config.protocol.extractor, run.name, "judge it with another extractor by `coldtune evaluate`")
    return run, Store(location), home


def choose_device(name: str | None) -> str:
    """Return the device that `--device` names, or by default a GPU if there is one.

    Raises:
        ValueError: If this machine has no such device.
    """
    import torch

    if name is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name not in ("cpu", "cuda") and not name.startswith("cuda:"):
        raise ValueError(f"--device {name}: allowed: cpu, cuda, cuda:N")
    if name != "cpu" and not torch.cuda.is_available():
        raise ValueError(f"--device {name}: this machine has no CUDA device that torch can use; allowed: cpu")
    return name


def prepare_device(options: argparse.Namespace, threads: int = 1) -> str:
    """Return the device of a command, after setting the CPU threads of this process.

    Args:
        threads: The number of threads if the user names none.
    """
    from coldtune.training.device import use_threads

    device = choose_device(options.device)
    if device == "cpu":
        use_threads(check_threads(options.threads) if options.threads is not None else threads)
    return device

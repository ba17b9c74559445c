"""`coldtune rerun`: repeat a finished trial from its record, and say whether its numbers agree."""

from __future__ import annotations

import argparse
import json
import math
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from coldtune.cli.common import Commands, check_threads, find_home
from coldtune.cli.finished_run import RUN, add_compute_flags, add_run_flags, choose_device, find_finished
from coldtune.cli.outputs import new_folder

if TYPE_CHECKING:
    from coldtune.stages.evaluate import FinishedTrial
    from coldtune.stages.rerun import Agreement, EnvironmentDifference, FirstRun
    from coldtune.store.store import Store
    from coldtune.studies.spec.folder import StudyFolder
    from coldtune.studies.storage.record import TrialRecord
    from coldtune.studies.trials.lookup import Home

RESULT_FILE = "rerun.json"
_MOST_PACKAGES = _MOST_NAMES = 6  # that a line lists
_SUFFIXES = ("_direct", "_naive", "_degraded", "_low", "_high")

DESCRIPTION = f"""
Repeat a finished trial from its record: train, sample and measure it anew in this process, in a new folder, without
anything that the store holds. The command says which parts of the environment differ from the record, and whether the
results agree bit for bit, or how far they are apart.

The exit code is 0 if the results agree bit for bit. It is also 0 if they do not, and something differs that can explain
it: the commit, a version, the hardware, or the number of threads or workers. A GPU explains it too, because the order
of its sums is not fixed. The code is 1 if the results differ and nothing explains it.
{RUN}"""


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "rerun",
        help="repeat a finished trial, and say whether its numbers agree",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_run_flags(parser)
    parser.add_argument(
        "-o", "--output", type=Path, metavar="DIR", help="a new or empty folder for the results (default: rerun-RUN)"
    )
    add_compute_flags(parser, "default: those of the record, or 1")
    parser.set_defaults(call=_rerun)


def _rerun(options: argparse.Namespace, console: Console) -> int:
    if options.threads is not None:
        check_threads(options.threads)
    folder = new_folder(options.output or Path(f"rerun-{_slug(options.run)}"), "--output")

    from coldtune.studies.trials.lookup import is_run_id

    # Only an MLflow run has the values of a trial whose store is elsewhere.
    run, store, home = find_finished(options, judges=True, anew=is_run_id(options.run))
    study = _study_of(run, find_home(options))
    record = _record(study, run)

    from coldtune.stages.rerun import EXPLAINING, check_protocol, compare_results, find_first_run, repeat
    from coldtune.store.store import Store
    from coldtune.training.device import use_threads

    device = _choose_device(options.device, record, run)
    found = _find_logged(run, home) if study is None and is_run_id(run.name) else None
    threads = _recorded_threads(record, run, store, found)
    if device == "cpu":
        use_threads(options.threads or threads or 1)
    first = _first_run(find_first_run(run, store, device, threads) or found, record, run, store.at.shown)
    check_protocol(run, store, device, first.protocol)
    folder.mkdir(parents=True, exist_ok=True)
    differences = _compare_environment(first, study, record, folder, device)
    _print_environment(console, run, differences, first)
    again = repeat(run, Store(folder / "store"), device)
    agreement = compare_results(first, again)
    reasons = [difference.name for difference in differences if difference.name in EXPLAINING]
    reasons += ["a GPU, on which the order of sums is not fixed"] if device != "cpu" else []
    unexplained = not agreement.exact and not reasons
    _print_agreement(console, agreement, reasons)
    result = _result(run, agreement, differences, reasons)
    (folder / RESULT_FILE).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    console.print(Text(f"{folder}: {RESULT_FILE}, and the new results in store/"), soft_wrap=True)
    return 1 if unexplained else 0


def _slug(name: str) -> str:
    return re.sub(r"[^\w.\-]+", "-", name).strip("-.")[-80:] or "trial"


def _study_of(run: FinishedTrial, home: Path) -> StudyFolder | None:
    """Return the study that a run was named by, or None if it was named by its configuration."""
    from coldtune.studies.spec.folder import StudyFolder

    study, _, number = run.name.rpartition("/")
    if not re.fullmatch(r"\d+(\.\d+)?", number) or not study or "/" in study or study.startswith("."):
        return None
    folder = StudyFolder(home, study)
    return folder if folder.exists else None


def _record(study: StudyFolder | None, run: FinishedTrial) -> TrialRecord | None:
    if study is None:
        return None
    from coldtune.studies.storage.record import TrialRecord
    from coldtune.studies.trials.reading import read_study

    trial = read_study(study).find(run.name.rpartition("/")[2])
    return None if trial is None else TrialRecord.of(trial)


def _choose_device(name: str | None, record: TrialRecord | None, run: FinishedTrial) -> str:
    """Return the device of the user, or the kind of device of the record if this machine has it."""
    import torch

    if name is not None:
        return choose_device(name)
    then = (record.computed or {}).get("device") if record else None
    return "cuda" if then == "gpu" and torch.cuda.is_available() else "cpu"


def _find_logged(run: FinishedTrial, home: Home) -> FirstRun | None:
    """Return what the MLflow run of a trial of another home says of its first run. None if it lacks a file."""
    from coldtune.stages.rerun import SETS, first_run_of_files
    from coldtune.studies.trials.lookup import read_logged

    try:
        judged = {name: json.loads(read_logged(run.name, f"judged/{name}/metrics.json", home)) for name in SETS}
        record = json.loads(read_logged(run.name, "record.json", home))
    except ValueError:  # the store may have the values
        return None
    try:
        return first_run_of_files(run, judged, record)
    except (KeyError, TypeError, AttributeError) as error:
        why = f"{type(error).__name__}: {error}"
        raise ValueError(f"{run.name}: the files of its MLflow run are not those of a trial ({why})") from None


def _recorded_threads(
    record: TrialRecord | None, run: FinishedTrial, store: Store, logged: FirstRun | None
) -> int | None:
    """Return the number of CPU threads of the record, or else of the training in the store. None if neither says it."""
    from coldtune.stages.finished_restorer import find_restorer

    if record is not None and record.computed:
        return record.computed.get("threads")
    made: Mapping[str, Any] = {} if logged is None else logged.made.get("trial", {})
    # The training may be gone although the record has its values.
    with suppress(ValueError):
        made = find_restorer(run, store).made
    threads = made.get("threads")
    return threads if isinstance(threads, int) and threads > 0 else None


def _first_run(found: FirstRun | None, record: TrialRecord | None, run: FinishedTrial, place: str) -> FirstRun:
    """Return the first run as its record and the store know it.

    Raises:
        ValueError: If neither has values of the trial.
    """
    from dataclasses import replace

    from coldtune.stages.rerun import FirstRun

    known = record is not None and bool(record.metrics) and record.judged_under is not None
    if found is None and not known:
        raise ValueError(
            f"{run.name}: no values of this trial are in {place}, so there is nothing to compare a repetition with. "
            f"The data here have the fingerprint {run.dataset.fingerprint[:12]}. Name the home or the --store of the "
            "trial, or its STUDY/NUMBER or MLflow run."
        )
    if record is None or not known:
        assert found is not None
        return found
    protocol = record.judged_under
    assert protocol is not None
    made = {"trial": record.environment} if record.environment else {}
    if found is None:
        return FirstRun(record.metrics, protocol, made, seconds=record.effort.trained)
    return replace(found, metrics=record.metrics, protocol=protocol, made={**made, **found.made})


def _compare_environment(
    first: FirstRun, study: StudyFolder | None, record: TrialRecord | None, folder: Path, device: str
) -> list[EnvironmentDifference]:
    import torch

    from coldtune.stages.rerun import EnvironmentDifference, compare_environments, compare_software
    from coldtune.store.provenance import keep_environment

    if device != "cpu":
        torch.cuda.init()  # type: ignore[no-untyped-call]  # so that the environment names the GPU
    now = keep_environment(folder / "environments")
    found = compare_environments(first.made, now)
    digest = str(record.environment.get("software", "")) if record else ""
    if study is None or not digest or digest == now["software"]:
        return found
    file = study.environments / f"{digest}.json"
    if not file.exists():
        return found
    from coldtune.readback import parse_json, read_bytes

    then = parse_json(read_bytes(file), file)
    here = json.loads((folder / "environments" / f"{now['software']}.json").read_text(encoding="utf-8"))
    packages = compare_software(then, here)
    changes = packages.pop("changes", None)
    named = {difference.name for difference in found}
    others = {name: versions for name, versions in packages.items() if name.lower() not in {"torch", "coldtune"}}
    if others:
        old, new = (_versions({name: pair[i] for name, pair in others.items()}) for i in (0, 1))
        found.append(EnvironmentDifference("packages", {old: ["trial"]}, new))
    if changes is not None and "commit" not in named:
        found.append(EnvironmentDifference("changes", {changes[0]: ["trial"]}, changes[1]))
    return found


def _versions(packages: Mapping[str, str]) -> str:
    listed = [f"{name} {version}" for name, version in list(packages.items())[:_MOST_PACKAGES]]
    more = len(packages) - len(listed)
    return ", ".join(listed) + (f" and {more} more" if more else "")


def _print_environment(
    console: Console, run: FinishedTrial, differences: Sequence[EnvironmentDifference], first: FirstRun
) -> None:
    took = "" if first.seconds is None else f" (then: {first.seconds:.0f} s)"
    console.print(Text(f"{run.name}: {run.config.training.steps:,} steps are trained anew{took}"), soft_wrap=True)
    console.print(Text(f"data: the same pixels (fingerprint {run.dataset.fingerprint[:12]})"), soft_wrap=True)
    for difference in differences:
        console.print(Text(str(difference)), soft_wrap=True)
    if not differences:
        console.print("commit, versions, hardware and threads: as recorded", highlight=False)


def _print_agreement(console: Console, agreement: Agreement, reasons: Sequence[str]) -> None:
    table = Table("", "then", "now", "difference", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    own = {name: pair for name, pair in agreement.metrics.items() if not name.endswith(_SUFFIXES)}
    for name, (then, now) in own.items():
        same = name not in agreement.differing
        table.add_row(name.upper(), f"{then:.6g}", f"{now:.6g}", "-" if same else f"{now - then:+.3g}")
    console.print(table, highlight=False)
    console.print(Text(_describe(agreement, reasons)), soft_wrap=True)


def _describe(agreement: Agreement, reasons: Sequence[str]) -> str:
    """Return the sentences that say how far two runs agree, and what may explain the rest."""
    differing, values = agreement.differing, len(agreement.metrics)
    equal = sum(part.equal for part in agreement.images.values())
    count = sum(part.count for part in agreement.images.values())
    gone = [name for name, there in (("weights", agreement.weights is not None), ("images", count > 0)) if not there]
    missing = f" The first {' and '.join(gone)} are not in the store." if gone else ""
    if agreement.exact:
        parts = [f"{values} values", *(["the weights"] if agreement.weights is not None else []),
                 *([f"{count:,} images"] if count else [])]  # fmt: skip
        return f"Agrees bit for bit: {', '.join(parts)}.{missing}"
    parts = ["all values are equal"]
    if differing:
        named = ", ".join(differing[:_MOST_NAMES]) + (", ..." if len(differing) > _MOST_NAMES else "")
        parts = [
            f"{len(differing)} of {values} values differ ({named})",
            _farthest(agreement),
        ]
    if agreement.weights is not None:
        weights = f"weights differ by at most {agreement.weights:.2g}" if agreement.weights else "all weights are equal"
        parts.append(weights)
    if count:
        largest = max(part.largest for part in agreement.images.values())
        differ = f"{count - equal:,} of {count:,} images differ by at most {largest} of 255 levels"
        parts.append(differ if largest else f"all {count:,} images are equal")
    why = f"These differ from the record and may explain it: {', '.join(reasons)}."
    if not reasons:
        why = "Nothing that is recorded explains it: the code, the versions, the hardware and the threads are the same."
    return f"Does not agree bit for bit: {'; '.join(parts)}.{missing} {why}"


def _farthest(agreement: Agreement) -> str:
    """Return a text about the value with the largest difference in relation to its size."""
    pairs = {name: agreement.metrics[name] for name in agreement.differing}
    shares = {name: abs(now - then) / max(abs(then), 1e-12) for name, (then, now) in pairs.items()}
    name = max(shares, key=lambda name: math.inf if math.isnan(shares[name]) else shares[name])
    then, now = pairs[name]
    share = "" if math.isnan(shares[name]) or not then else f", or {100 * shares[name]:.2g} %"
    return f"{name} differs most for its size, by {abs(now - then):.2g}{share}"


def _result(
    run: FinishedTrial, agreement: Agreement, differences: Sequence[EnvironmentDifference], reasons: Sequence[str]
) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "run": run.name,
        "exact": agreement.exact,
        "reasons": list(reasons),
        "environment": {each.name: {"then": dict(each.then), "now": each.now} for each in differences},
        "metrics": {name: {"then": _number(a), "now": _number(b)} for name, (a, b) in agreement.metrics.items()},
        "weights": agreement.weights,
        "images": {name: asdict(part) for name, part in agreement.images.items()},
    }


def _number(value: float) -> float | str:
    """Return a number as JSON has it. JSON knows neither infinity nor NaN."""
    return value if math.isfinite(value) else str(value)

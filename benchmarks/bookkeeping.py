"""Time the bookkeeping of a study with many trivial trials, beside plain Ray Tune with OptunaSearch.

    uv run benchmarks/bookkeeping.py [--trials 10000] [--other-trials 1000] [--dir DIR] [--rows ROW ...]

Every row is a process with its own Ray cluster. It runs two trials at once and reuses their processes. A trial does
nothing, so the time from a trial's end to the next trial's end is bookkeeping of Tune, of Ray and of the study, and the
time of the suggestion, which is shown separately.

"ours" runs the code of a study: its ledger on a journal file, and `execute`. If the row is tracked, it also writes the
study's records to spools and delivers them to MLflow (SQLite). "late" continues a study of 10,000 trials. "stock" is
OptunaSearch on a journal file with the same space and algorithm, and MLflowLoggerCallback if the row is tracked. The
script prints Markdown tables.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
AT_ONCE = 2
NAME = "bookkeeping"
ASKED_AT = (10, 100, 1_000, 3_000, 10_000)
REPEATS = 11
ROWS = ("stock random", "ours random", "stock random", "ours late", "stock tracked", "ours tracked")
LONG = "ours random"  # has --trials trials, and every other row has --other-trials
LATE = 10_000  # trials in the study of "ours late" before it begins


@dataclass
class Clock:
    """The time of each trial's end, and the time that the driver had spent on each part by then."""

    total: int
    label: str
    file: Path | None = None  # a line per trial, so that a row that is cut off keeps its measurements
    parts: dict[str, float] = field(default_factory=dict)
    rows: list[dict[str, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            "{task.description}",
            BarColumn(),
            MofNCompleteColumn(),
            "{task.fields[rate]}",
            TimeRemainingColumn(),
        )
        shown = [TextColumn(column) if isinstance(column, str) else column for column in columns]
        self._bar = Progress(*shown, console=Console(stderr=True), refresh_per_second=1)
        self._task = self._bar.add_task(self.label, total=self.total, rate="")
        self._bar.start()

    def timed(self, part: str, owner: Any, *names: str) -> None:
        """Add the time of an object's methods to a part. Of nested calls, only the outer call counts."""
        for name in names:
            setattr(owner, name, self._wrapped(part, getattr(owner, name)))

    def _wrapped(self, part: str, call: Callable[..., Any]) -> Callable[..., Any]:
        inside = False

        def timed(*args: Any, **keys: Any) -> Any:
            nonlocal inside
            if inside:
                return call(*args, **keys)
            inside, started, begun = True, time.perf_counter(), time.thread_time()
            try:
                return call(*args, **keys)
            finally:
                inside = False
                self.parts[part] = self.parts.get(part, 0.0) + time.perf_counter() - started
                self.parts[f"{part} CPU"] = self.parts.get(f"{part} CPU", 0.0) + time.thread_time() - begun

        return timed

    def ended(self) -> None:
        row = {"at": time.perf_counter(), "cpu": time.process_time(), "mb": resident_mb(), **self.parts}
        self.rows.append(row)
        if self.file:
            with self.file.open("a") as file:
                file.write(json.dumps(row) + "\n")
        last = self.rows[-min(50, len(self.rows))]
        if seconds := self.rows[-1]["at"] - last["at"]:
            rate = f"{min(50, len(self.rows)) / seconds:.1f} trials/s, {self.rows[-1]['mb']:.0f} MB"
            self._bar.update(self._task, completed=len(self.rows), rate=rate)

    def stop(self) -> None:
        self._bar.stop()


def resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def make_spec(algorithm: str) -> Any:
    from coldtune.config import parse
    from coldtune.studies.spec.build import build_spec

    spec = build_spec(NAME, ROOT / "search_spaces" / "blur.yaml")
    search = {**spec.search.model_dump(), "algorithm": algorithm}
    return spec.model_copy(update={"search": parse(type(spec.search), search)})


@functools.cache
def make_space() -> Any:
    from coldtune.studies.space.space import Space

    spec = make_spec("random")
    return Space(spec.space, spec.base, (1, 16, 16))


def value(number: int) -> float:
    return 1.0 + number * 7919 % 1000 / 1000


def trivial_trial(config: Mapping[str, Any]) -> None:
    """Run a trial like `coldtune_trial`, but without training, sampling and measuring."""
    from ray import tune

    from coldtune.config import parse
    from coldtune.stages.trial import flat
    from coldtune.studies.storage.outcome import Effort, StoredStage, TrialOutcome
    from coldtune.studies.worker.job import TrialJob
    from coldtune.tracking import Tracker, trial_metrics

    job = parse(TrialJob, json.loads(config["job"]))
    metrics = {"fid": value(job.number), "ssim": 0.5, "rmse": 0.1, "nfe": 20.0}
    if job.spool:
        with Tracker(Path(job.spool), job.study, job.number, tags=job.tags) as tracker:
            tracker.params(flat(job.trial))
            tracker.metrics(trial_metrics(metrics))
            tracker.tags({"protocol": "0" * 64})
    stages = tuple(StoredStage(stage, "0" * 64, False, 0.0) for stage in ("train", "sample", "measure"))
    paths = dict.fromkeys(("degraded", "direct", "sampled"), "/" + "0" * 100)
    outcome = TrialOutcome(
        metrics=metrics,
        protocol={"split": "validation", "num_images": 100},
        stages=stages,
        images=paths,
        measured=paths,
        checkpoint="/" + "0" * 100,
        effort=Effort(seconds=0.0),
    )
    tune.report({"state": "complete", "outcome": outcome.to_json()})


def run_ours(
    algorithm: str, tracked: bool, trials: int, folder: Path, clock: Clock, there: int = 0
) -> dict[str, float]:
    import ray

    from coldtune.diffusion import build_degradation
    from coldtune.studies.execution import cluster
    from coldtune.studies.execution.executor import execute
    from coldtune.studies.preflight.capacity import Capacity, TrialResources
    from coldtune.studies.progress.events import Events
    from coldtune.studies.progress.mlflow_runs import MlflowRuns
    from coldtune.studies.storage.backends import open_storage
    from coldtune.studies.trials.ledger import TrialRequest, open_ledger
    from coldtune.studies.worker.job import TrialJob
    from coldtune.tracking import default_uri, prepare

    spec = make_spec(algorithm)
    ledger = filled(algorithm, there, folder) if there else open_ledger(NAME, spec, make_space(), open_storage(folder))
    trials += ledger.finished()
    target = prepare(default_uri(folder), "coldtune", folder / "artifacts") if tracked else None
    records = MlflowRuns(ledger, NAME, folder / "spool", target, {}) if target else None
    events: Any = records or Events()

    def job(asked: TrialRequest) -> TrialJob:
        leftover = getattr(build_degradation(asked.config.degradation, (1, 16, 16)), "leftover", None)
        spool = str(folder / "spool") if tracked else ""
        return TrialJob(
            study=NAME, number=asked.number, again=asked.again, trial=asked.config, leftover=leftover,
            home=str(folder), dataset_path=str(folder), source_path=None, spool=spool, environments=str(folder),
            tags={"git_commit": "0" * 40, "job": "bookkeeping"}, workers=1, cpus=1, gpus=0.0,
        )  # fmt: skip

    clock.timed("suggestion", ledger.study.sampler, "infer_relative_search_space", "sample_relative")
    clock.timed("study", ledger, "wanted", "ask", "complete")
    clock.timed("records", events, "asked", "completed")
    completed = events.completed

    def ended(number: int, result: Mapping[str, Any]) -> None:
        completed(number, result)
        clock.ended()

    events.completed = ended
    assert ray.cluster_resources()["CPU"] >= AT_ONCE
    room = Capacity(TrialResources(count=AT_ONCE, workers=1, cpus=1, gpus=0.0), AT_ONCE, cluster.nodes)
    execute(ledger, events, job, room, trials, folder / "tune", trivial_trial)
    clock.stop()
    started = time.perf_counter()
    left = records.close(600.0) if records else 0
    assert not left
    return {"delivered_after": time.perf_counter() - started}


def stock_trial(config: Mapping[str, Any]) -> None:
    from ray import tune

    tune.report({"fid": 1.0 + config["T"] / 100})


def stock_point(trial: Any) -> None:
    """Suggest a point of the same space to OptunaSearch.

    The function belongs to the module, because Tune pickles the searcher every ten seconds.
    """
    from optuna.distributions import CategoricalDistribution, IntDistribution

    def pick(name: str, of: Any) -> Any:
        if isinstance(of, CategoricalDistribution):
            return trial.suggest_categorical(name, of.choices)
        suggest = trial.suggest_int if isinstance(of, IntDistribution) else trial.suggest_float
        return suggest(name, of.low, of.high, log=of.log, step=of.step)

    make_space().walk(pick)


def run_stock(algorithm: str, tracked: bool, trials: int, folder: Path, clock: Clock) -> dict[str, float]:
    import logging

    import optuna
    from optuna.samplers import RandomSampler, TPESampler
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend
    from ray import tune
    from ray.air.integrations.mlflow import MLflowLoggerCallback
    from ray.tune.search.optuna import OptunaSearch

    sampler: Any = RandomSampler(seed=0)
    if algorithm == "tpe":
        startup = make_spec(algorithm).search.startup
        sampler = TPESampler(seed=0, n_startup_trials=startup, multivariate=True, group=True, constant_liar=True)
    clock.timed("suggestion", type(sampler), "infer_relative_search_space", "sample_relative", "sample_independent")
    clock.timed("study", OptunaSearch, "suggest", "on_trial_complete")
    clock.timed("records", MLflowLoggerCallback, "log_trial_start", "log_trial_result", "log_trial_end")

    class Ended(tune.Callback):  # type: ignore[misc]
        def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            clock.ended()

    uri = f"sqlite:///{folder}/mlflow.db"
    search = OptunaSearch(
        stock_point, metric="fid", mode="min", sampler=sampler, study_name=NAME,
        storage=JournalStorage(JournalFileBackend(str(folder / "journal.log"))),
    )  # fmt: skip
    callbacks = [MLflowLoggerCallback(tracking_uri=uri, experiment_name="stock")] if tracked else []
    del os.environ["TUNE_GLOBAL_CHECKPOINT_S"]  # the default of plain Ray Tune
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    tune.Tuner(
        stock_trial,
        tune_config=tune.TuneConfig(search_alg=search, num_samples=trials, reuse_actors=True),
        run_config=tune.RunConfig(
            name="stock", storage_path=str(folder / "tune"), verbose=0, callbacks=[*callbacks, _closing(Ended)]
        ),
    ).fit()
    clock.stop()
    return {"delivered_after": 0.0}


def _closing(callback: type) -> Any:
    """Return an instance of the callback that Tune pickles as an empty dict."""
    return type("Ended", (callback,), {"__reduce__": lambda self: (dict, ())})()


def one(row: str, trials: int, folder: Path) -> None:
    """Run a row in this process, and write its measurements into the folder."""
    who, what = row.split()
    clock = Clock(trials, row, folder / "rows.jsonl")
    algorithm, tracked = ("tpe" if what == "tpe" else "random"), what == "tracked"
    from coldtune.studies.execution import cluster

    with cluster.connect(NAME):  # before Ray is imported, because Ray reads then how to authenticate
        if who == "ours":
            more = run_ours(algorithm, tracked, trials, folder, clock, LATE if what == "late" else 0)
        else:
            more = run_stock(algorithm, tracked, trials, folder, clock)
    (folder / "more.json").write_text(json.dumps(more))


def filled(algorithm: str, count: int, folder: Path) -> Any:
    """Return the ledger of a study with `count` completed trials."""
    import random

    from optuna.trial import create_trial

    from coldtune.studies.storage.backends import open_storage
    from coldtune.studies.storage.journal import batch
    from coldtune.studies.storage.outcome import TrialOutcome
    from coldtune.studies.trials.ledger import open_ledger

    folder.mkdir(exist_ok=True)
    space, rng = make_space(), random.Random(0)
    ledger = open_ledger(NAME, make_spec(algorithm), space, open_storage(folder))
    ledger.complete(ledger.ask().number, TrialOutcome({"fid": value(0)}))  # the first trial is the base
    with batch(ledger.study):
        for number in range(1, count):
            point = space.sample(rng)
            distributions = {name: space.distributions[name] for name in point}
            ledger.study.add_trial(create_trial(params=point, distributions=distributions, value=value(number)))
    return ledger


def asks(scratch: Path) -> None:
    """Time the suggestion and the rest of an ask and a tell for studies with more and more trials."""
    from coldtune.studies.storage.outcome import TrialOutcome

    print(
        "\n| algorithm | trials there | suggestion, ms | the rest of an ask, ms | a tell, ms |\n" + "| --: " * 5 + "|"
    )
    for algorithm in ("random", "tpe"):
        for count in ASKED_AT:
            ledger = filled(algorithm, count, scratch / f"{algorithm}-{count}")
            clock = Clock(REPEATS, f"{algorithm}, {count:,}")
            clock.timed("suggestion", ledger.study.sampler, "infer_relative_search_space", "sample_relative")
            clock.timed("ask", ledger, "ask")
            clock.timed("tell", ledger, "complete")
            for _ in range(REPEATS):
                clock.ended()
                ledger.complete(ledger.ask().number, TrialOutcome({"fid": 1.5}))
            clock.ended()
            clock.stop()
            spent = [
                {part: b[part] - a.get(part, 0.0) for part in ("suggestion", "ask", "tell")}
                for a, b in itertools.pairwise(clock.rows)
            ]
            suggestion = statistics.median(row["suggestion"] for row in spent)
            rest = statistics.median(row["ask"] - row["suggestion"] for row in spent)
            tell = statistics.median(row["tell"] for row in spent)
            cells = " | ".join(f"{1000 * seconds:.2f}" for seconds in (suggestion, rest, tell))
            print(f"| {algorithm} | {count:,} | {cells} |", flush=True)


def windows(rows: list[dict[str, float]], width: int) -> list[tuple[str, dict[str, float]]]:
    """Return means over windows of `width` trials: the ms per trial of each part, and the memory at the end."""
    found = []
    for first in range(0, len(rows) - 1, width):
        part = rows[first : first + width + 1]
        count = len(part) - 1
        if count < width // 2:
            continue
        means = {key: 1000 * (part[-1].get(key, 0.0) - part[0].get(key, 0.0)) / count for key in part[-1]}
        found.append((f"{first:,} to {first + count:,}", {**means, "mb": part[-1]["mb"]}))
    return found


def table(row: str, folder: Path, width: int) -> None:
    """Print the windows of a row as a Markdown table."""
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    more = folder / "more.json"
    after = f"{json.loads(more.read_text())['delivered_after']:.1f} s" if more.exists() else "not waited for"
    print(f"\n**{row}**, {len(rows):,} trials, ms a trial; delivered after the last trial: {after}\n")
    print("| trials | wall | without suggestion | suggestion | study (CPU) | records (CPU) | driver CPU | memory, MB |")
    print("| --: " * 8 + "|")
    for name, mean in windows(rows, width):
        apart = mean.get("suggestion", 0.0)
        study, computing = mean.get("study", 0.0), mean.get("study CPU", 0.0)
        if study:
            study, computing = study - apart, computing - mean.get("suggestion CPU", 0.0)
        parts = f"{apart:.2f} | {study:.2f} ({computing:.2f}) | "
        parts += f"{mean.get('records', 0.0):.2f} ({mean.get('records CPU', 0.0):.2f})"
        whole = f"{mean['at']:.2f} | {mean['at'] - apart:.2f}"
        print(f"| {name} | {whole} | {parts} | {mean['cpu']:.2f} | {mean['mb']:.0f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=10_000, help=f"of {LONG} (default 10,000)")
    parser.add_argument("--other-trials", type=int, default=1_000, help="of the other rows (default 1,000)")
    parser.add_argument("--rows", nargs="*", choices=(*ROWS, "stock tpe", "ours tpe"), default=ROWS)
    parser.add_argument("--limit", type=float, metavar="S", help="seconds after which a row is cut off (default none)")
    parser.add_argument("--dir", type=Path, help="where studies are written (default: a temporary folder)")
    parser.add_argument("--one", nargs=3, metavar=("ROW", "TRIALS", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        one(options.one[0], int(options.one[1]), Path(options.one[2]))
        return
    from coldtune.store.provenance import git_commit, made

    with tempfile.TemporaryDirectory(prefix="bk", dir=options.dir) as scratch:
        machine = made()
        print(f"Commit {git_commit()}; {machine['cpus']} CPUs ({machine['device']}), Python {machine['python']}.")
        for number, row in enumerate(options.rows):
            folder = Path(scratch) / str(number)
            folder.mkdir()
            trials = options.trials if row == LONG else options.other_trials
            command = [sys.executable, __file__, "--one", row, str(trials), str(folder)]
            environment = {**os.environ, "RAY_TMPDIR": scratch}
            with contextlib.suppress(subprocess.TimeoutExpired):
                subprocess.run(command, check=True, env=environment, timeout=options.limit)
            table(row, folder, max(1, trials // (10 if row == LONG else 2)))
        asks(Path(scratch))


if __name__ == "__main__":
    main()

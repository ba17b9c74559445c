"""Running a study from its spec to its table: check everything, then spend."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import torch
from rich.console import Console
from rich.text import Text

import coldtune
from coldtune import data, tracking
from coldtune.config import parse, plain
from coldtune.data import DataConfig, Dataset
from coldtune.diffusion import build_degradation, source_of
from coldtune.metrics import DISTANCES, build_extractor, check_objective, resolve
from coldtune.metrics.image import WINDOW as SSIM_WINDOW
from coldtune.metrics.judgement import IMAGE_SCORES
from coldtune.metrics.protocol import Protocol, ProtocolConfig, Task
from coldtune.stages.store import Store
from coldtune.stages.store_at import StoreAt
from coldtune.stages.store_made import git_commit
from coldtune.stages.trial import parse_trial
from coldtune.studies import cluster, reach, show
from coldtune.studies.begin import IMPORTED_FROM, TRIALS, Imports, check_judge, check_spec, imported
from coldtune.studies.board import board_of
from coldtune.studies.executor import Events, StoppedError, execute
from coldtune.studies.folder import StudyFolder
from coldtune.studies.hold import Hold, held
from coldtune.studies.importing import Importer, gather, is_ready
from coldtune.studies.ledger import Asked, Ledger, open_study
from coldtune.studies.limits import STOPPED, Limits, Stops
from coldtune.studies.live import Spent, View
from coldtune.studies.patience import StorageGoneError
from coldtune.studies.pruning import check_pruning
from coldtune.studies.pruning_paired import judgements_of
from coldtune.studies.records import Records
from coldtune.studies.sampler import PROMOTED, listed_points
from coldtune.studies.settle import wrapped_up
from coldtune.studies.slots import Room, Slots, check_gpus, plan
from coldtune.studies.space import Space
from coldtune.studies.space_config import VARIANT
from coldtune.studies.spec import StudySpec
from coldtune.studies.storage import open_storage
from coldtune.studies.together import Together, set_up_by_others, wait_for_others
from coldtune.studies.watch import INTERRUPTED, ray_places, watch
from coldtune.studies.worker import TrialJob

EXPERIMENT = "coldtune"


@dataclass(frozen=True)
class RunOptions:
    """How a study is run; none of it changes what the study is.

    trials: how many there shall be in all (None: as many as last time, or `default_trials`).
    name: the study's (None: the one that follows from the spec). resume: refuse to start anew. store: where finished
    work is kept (None: where it was last time, or `home/store`).
    command: what a person types to do this again. begun: when this process began, of `time.monotonic`.
    join: run trials beside the drivers that run the study already.
    """

    home: Path
    command: str
    trials: int | None = None
    default_trials: int = 12
    name: str | None = None
    resume: bool = False
    join: bool = False
    data_dir: Path | None = None
    tracking_uri: str | None = None
    storage: str | None = None
    store: str | None = None
    workers: int = 1
    gpus_per_trial: float = 0.0
    begun: float = field(default_factory=time.monotonic)
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True)
class Checked:
    """A study that may be spent on: everything in it was checked."""

    spec: StudySpec
    folder: StudyFolder
    dataset: Dataset
    sources: Mapping[str, Dataset]
    space: Space
    protocol: Protocol
    trials: int
    store: StoreAt
    imports: Imports = field(default_factory=Imports)


def run_study(spec: StudySpec, options: RunOptions, console: Console) -> int:
    """Run or resume the study until it has its trials; gives the process's exit code.

    0: it has them; 130: interrupted, or Ray died; 3: it stopped by its own limits. The latter two say how to resume.

    Raises ValueError, before Ray starts or anything is spent, for whatever in the spec, the options or the machine
    would make it fail.
    """
    torch.set_num_threads(1)  # the driver computes nothing large, and its trials want the cores
    checked = check(spec, options)
    with ExitStack() as stack:
        with checked.folder.starting():
            storage = open_storage(checked.folder.path, options.storage)
            target = tracking.prepare(
                options.tracking_uri or tracking.default_uri(options.home), EXPERIMENT, options.home / "artifacts"
            )
            study = open_study(checked.folder.name, spec, storage)
            check_spec(study, spec)
            board = board_of(study, checked.folder.path, options.storage)
            hold = stack.enter_context(held(board, study.study_name, options.join, partial(_dim, console)))
            checked = _joining(checked, study, hold, options)
            ledger = Ledger(
                checked.folder.name, spec, checked.space, storage, judgements_of(Store(checked.store)),
                hold=hold, imports=checked.imports, fingerprint=checked.dataset.fingerprint, store=checked.store,
            )  # fmt: skip
            checked = replace(checked, trials=min(checked.trials, ledger.most() or checked.trials))
            if ledger.finished() < checked.trials:
                check_judge(checked.folder.name, ledger.trials(), checked.protocol)
            _write_start(checked, options, ledger)
        show.opening(console, checked, ledger, options, target.uri)
        close = partial(show.closing, console, checked.folder, ledger, checked.trials, options.command, target)
        try:
            over = ledger.finished() >= checked.trials and wrapped_up(checked.folder.spool)
            if over and tracking.pending(checked.folder.spool, target):  # its driver died at its very end
                tracking.drain(checked.folder.spool, target)
            finished = over or _run(checked, ledger, options, target, console, close)
        except StorageGoneError as gone:
            show.gone(console, gone, options.command)
            return INTERRUPTED
        except StoppedError as stopped:
            console.print(Text(f"\nstopped: {stopped}", style="red"), soft_wrap=True)
            close(False)
            return STOPPED
        close(finished)
        return 0 if finished else INTERRUPTED


def _joining(checked: Checked, study: optuna.Study, hold: Hold, options: RunOptions) -> Checked:
    """A driver that joins runs the study as whoever leads does, for the same number of trials."""
    if not set_up_by_others(study, hold):
        return checked
    trials = int(study.user_attrs[TRIALS])
    if options.trials not in (None, trials):
        raise ValueError(f"--trials {options.trials}: joins a study of {trials} trials; extend it once it has them")
    return replace(checked, trials=trials)


def check(spec: StudySpec, options: RunOptions) -> Checked:
    """What the study needs, prepared and checked; ValueError for whatever would make it fail. Nothing is spent."""
    if options.trials is not None and options.trials < 1:
        raise ValueError(f"--trials {options.trials}: at least 1")
    if options.workers < 1:
        raise ValueError(f"--workers {options.workers}: at least 1")
    check_gpus(options.workers, options.gpus_per_trial)
    if options.join and (options.storage or "").startswith("sqlite"):
        raise ValueError(
            f"--join: {tracking.shown(options.storage or '')} may give one trial to two drivers, as SQLite locks no "
            "rows; leave --storage out, or name a server, such as postgresql://"
        )
    if cluster.local():
        here = {"CPU": float(os.cpu_count() or 1), "GPU": float(torch.cuda.device_count())}
        plan([here], options.workers, options.gpus_per_trial, 1)
    check_pruning(spec)
    folder = StudyFolder(options.home, options.name or spec.name)
    if options.resume and not folder.exists:
        there = ", ".join(p.name for p in sorted(folder.path.parent.glob("*"))) or "none"
        raise ValueError(f"--resume: there is no study {folder.name} in {options.home} (there are: {there})")
    store = _store(folder, options)
    dataset = data.prepare(parse(DataConfig, spec.base["data"], "data"), options.home, options.data_dir)
    if folder.exists:
        folder.check(spec, dataset.fingerprint)
    space = Space(spec.space, spec.base, dataset.image_shape)
    sources = {name: _source(name, spec, dataset, options) for name in sorted(space.sources())}
    config = parse(ProtocolConfig, spec.base["protocol"], "protocol")
    task = parse_trial(spec.base).task
    protocol = resolve(config, build_extractor(config.extractor), dataset, task)
    if space.size is None:  # variants are reported, whatever they are worth: nothing is chosen by their FID
        for objective in spec.objectives:
            _check_objective(objective.metric, protocol, task)
    if task == "restored" and min(dataset.image_shape[1:]) < SSIM_WINDOW:
        raise ValueError(
            f"data.image_size = {spec.base['data']['image_size']}: at least {SSIM_WINDOW}, the width of SSIM's window"
        )
    if config.split == "test" and space.size is None:
        raise ValueError("protocol.split = 'test': a search judges by validation; test is for the chosen trial, once")
    checked = Checked(spec, folder, dataset, sources, space, protocol, _trials(spec, space, folder, options), store)
    if not spec.imports or is_ready(folder, options.storage):
        return checked
    return replace(checked, imports=gather(Importer(spec, space, dataset, sources, protocol), folder, options.storage))


def _store(folder: StudyFolder, options: RunOptions) -> StoreAt:
    """Where finished work is kept; ValueError where that cannot be reached or written."""
    as_before = options.store is None and folder.exists
    store = folder.store() if as_before else StoreAt.in_home(options.home, options.store)
    store.check()
    return store


def _check_objective(metric: str, protocol: Protocol, task: Task) -> None:
    check_objective(protocol, metric)
    if task == "generated" and metric in IMAGE_SCORES:
        raise ValueError(
            f"objective.metric = {metric!r}: compares images with their originals, and generated images have none; "
            f"allowed: {', '.join(DISTANCES)}, nfe"
        )


def _trials(spec: StudySpec, space: Space, folder: StudyFolder, options: RunOptions) -> int:
    """How many trials there shall be: as asked; else as last time; else all of a list, or the job's default."""
    if space.size is not None and options.trials not in (None, space.size):
        raise ValueError(
            f"--trials {options.trials}: this study has {space.size} variants, each of which is asked once"
        )
    points = listed_points(space, spec.search, spec.seed)
    if points is not None and (options.trials or 0) > len(points) + _promoted(spec, folder, options):
        raise ValueError(f"--trials {options.trials}: the grid has {len(points):,} points, each of which is asked once")
    last = int(folder.start()["trials"]) if folder.exists else None
    return options.trials or last or (len(points) if points is not None else options.default_trials)


def _promoted(spec: StudySpec, folder: StudyFolder, options: RunOptions) -> int:
    """How many trials of a study take pruned ones further, in addition to the points of a grid."""
    if spec.pruning.kind == "none" or not folder.exists:
        return 0
    study = optuna.load_study(study_name=folder.name, storage=open_storage(folder.path, options.storage))
    return sum(PROMOTED in trial.user_attrs for trial in study.get_trials(deepcopy=False))


def _source(name: str, spec: StudySpec, dataset: Dataset, options: RunOptions) -> Dataset:
    """The dataset that degradations draw from, prepared like the one that is restored."""
    config = parse(DataConfig, {**spec.base["data"], "name": name}, "degradation.source")
    source = data.prepare(config, options.home, options.data_dir)
    if source.image_shape != dataset.image_shape:
        raise ValueError(
            f"degradation.source = {name!r}: its images are {'x'.join(map(str, source.image_shape))}, those of "
            f"{dataset.name!r} {'x'.join(map(str, dataset.image_shape))}; both must be alike"
        )
    return source


def _write_start(checked: Checked, options: RunOptions, ledger: Ledger) -> None:
    """Write down how the study is run, where this driver leads or the home does not know the study."""
    assert ledger.hold is not None
    if checked.folder.exists and not ledger.hold.leads():
        return
    if ledger.hold.leads():
        ledger.study.set_user_attr(TRIALS, checked.trials)
    start = {
        "trials": max(checked.trials, ledger.finished()),
        "fingerprint": checked.dataset.fingerprint,
        "command": options.command,
        "data_dir": str(options.data_dir.absolute()) if options.data_dir else None,
        "tracking_uri": options.tracking_uri,
        "storage": options.storage,
        "store": None if checked.store == StoreAt.in_home(options.home, None) else checked.store.where,
        "workers": options.workers,
        "gpus_per_trial": options.gpus_per_trial,
        "limits": asdict(options.limits),
    }
    checked.folder.save(checked.spec, start)


def _run(
    checked: Checked,
    ledger: Ledger,
    options: RunOptions,
    target: tracking.Target,
    console: Console,
    close: Callable[[bool], None],
) -> bool:
    """Run the trials that are missing, then measure the best one on test; False where it was interrupted.

    close: says how a study ended, and how to resume it; for an end that does not come back here.
    """
    name, spool = checked.folder.name, checked.folder.spool
    tags = {
        "git_commit": git_commit() or f"coldtune {coldtune.__version__}",
        "job": checked.spec.job,
        "mlflow.source.name": checked.spec.job,
        "dataset_fingerprint": checked.dataset.fingerprint,
    }
    records = Records(ledger, name, spool, target, {**tags, "protocol": checked.protocol.key})
    if records.leads():
        records.settle()
        records.parent.params({"objective": _and(checked.spec), **_imported(ledger)})
        records.parent.tags({"trials": checked.trials})  # a larger number extends the study; parameters stay
        records.parent.artifact(checked.folder.path / "spec.yaml")
    shown = ExitStack()

    def farewell(why: str, own: bool) -> None:
        shown.close()
        again = "" if own else "; start the cluster again before you resume"
        console.print(f"\n[red]{why}, and its trials with it{again}[/]", highlight=False)
        records.interrupted(ledger.live())
        records.close()
        close(False)

    try:
        with (
            cluster.connect(name) as context,
            watch(ray_places(context["own"]), partial(farewell, own=context["own"])),
            shown,
        ):
            reach.check(_needs(checked, options, target))
            slots = plan(cluster.nodes(), options.workers, options.gpus_per_trial, checked.trials)
            room = Room(slots, checked.trials, cluster.nodes)
            show.running(console, slots, context)
            _interrupt_on_sigterm()
            best = ledger.best()
            view = View(
                console=console,
                name=name,
                total=checked.trials,
                ended=ledger.finished(),
                metric=checked.spec.objective.metric,
                minimize=checked.spec.objective.direction == "minimize",
                best=(best.values[0], best.number) if best else None,
            )
            job = _jobs(checked, options, slots, tags)
            spent = Spent(slots.count, options.begun)
            shown.enter_context(view)
            stops = Stops(options.limits, room, view.notice)
            events = _All([records, view, spent, stops, together := Together(ledger, view)])
            missing = ledger.finished() < checked.trials  # none, where a driver died between the last trial and the end
            more = ledger.wanted(checked.trials) > 0 or wait_for_others(ledger, together, checked.trials)
            while more:
                execute(ledger, events, job, room, checked.trials, options.home / "ray", retries=options.limits.retries)
                more = wait_for_others(ledger, together, checked.trials)
            shown.close()
            if missing:
                console.print(f"\n{spent}", highlight=False)
            if not records.leads():
                return True
            if missing:
                records.parent.metrics({"overhead_percent": spent.overhead_percent()}, ledger.finished())
            if ledger.finished() < checked.trials:
                records.interrupted(ledger.live())
                return False
            if checked.space.size is None:
                _on_test(checked, ledger, records, job, slots, console)
            for path in show.write_table(checked.folder, ledger):
                records.parent.artifact(path)
            records.finished()
            return True
    except BaseException as error:
        records.interrupted(ledger.live())
        if isinstance(error, KeyboardInterrupt):
            return False
        raise
    finally:
        if left := records.close():
            console.print(
                f"[yellow]{left:,} bytes of this study's records wait in {spool}: the tracking server did not take "
                "them; the next run delivers them[/]"
            )


class _All(Events):
    """Several listeners as one."""

    def __init__(self, listeners: list[Events]) -> None:
        self._listeners = listeners

    def asked(self, asked: Asked) -> None:
        for listener in self._listeners:
            listener.asked(asked)

    def started(self, number: int) -> None:
        for listener in self._listeners:
            listener.started(number)

    def progressed(self, number: int, result: Mapping[str, Any]) -> None:
        for listener in self._listeners:
            listener.progressed(number, result)

    def completed(self, number: int, result: Mapping[str, Any]) -> None:
        for listener in self._listeners:
            listener.completed(number, result)

    def failed(self, number: int, reason: str) -> None:
        for listener in self._listeners:
            listener.failed(number, reason)

    def pruned(self, number: int, step: int) -> None:
        for listener in self._listeners:
            listener.pruned(number, step)

    def lost(self, number: int) -> None:
        for listener in self._listeners:
            listener.lost(number)

    def restarted(self, number: int) -> None:
        for listener in self._listeners:
            listener.restarted(number)

    def tick(self) -> None:
        for listener in self._listeners:
            listener.tick()


def _needs(checked: Checked, options: RunOptions, target: tracking.Target) -> reach.Needs:
    """What trials need, wherever they run."""
    datasets = {f"dataset {dataset.name}": dataset.path for dataset in [checked.dataset, *checked.sources.values()]}
    store = {} if checked.store.remote else {"store": checked.store.path}
    return reach.Needs({"home": options.home, **store}, datasets, checked.store, target.uri, options.storage)


def _jobs(checked: Checked, options: RunOptions, slots: Slots, tags: Mapping[str, object]) -> Any:
    def job(asked: Asked) -> TrialJob:
        degradation = build_degradation(asked.config.degradation, checked.dataset.image_shape)
        source = source_of(asked.config.degradation)
        named: dict[str, object] = {VARIANT: asked.point[VARIANT]} if VARIANT in asked.point else {}
        if asked.promoted_from is not None:
            named[PROMOTED] = asked.promoted_from
        return TrialJob(
            study=checked.folder.name,
            number=asked.number,
            again=asked.again,
            trial=asked.config,
            protocol=checked.protocol,
            leftover=getattr(degradation, "leftover", None),
            home=str(options.home),
            store=checked.store.where,
            dataset_path=str(checked.dataset.path),
            source_path=str(checked.sources[source].path) if source else None,
            spool=str(checked.folder.spool),
            tags={key: str(value) for key, value in {**tags, **named}.items()},
            workers=slots.workers,
            cpus=slots.cpus,
            gpus=slots.gpus,
            timeout=options.limits.trial_timeout,
        )

    return job


def _on_test(checked: Checked, ledger: Ledger, records: Records, job: Any, slots: Slots, console: Console) -> None:
    """Measure the best trial once on the test split, where one completed."""
    best = ledger.best()
    if best is None or ledger.study.user_attrs.get("test", {}).get("trial") == best.number:
        return
    import ray

    from coldtune.studies.worker import measure_on_test

    config = checked.space.resolve(best.params)
    asked = Asked(best.number, best.params, config, again=False)
    remote = ray.remote(measure_on_test).options(num_cpus=slots.cpus, num_gpus=slots.gpus, name="coldtune_test")
    with console.status(f"measuring trial {best.number}, the best, on the test split"):
        values, protocol = ray.get(remote.remote(plain(job(asked))))
    ledger.study.set_user_attr("test", {"trial": best.number, "metrics": values, "protocol": protocol})
    records.parent.metrics({f"test_{key}": value for key, value in values.items()}, ledger.finished())
    records.parent.tags({"best_trial": best.number, "test_protocol": parse(Protocol, protocol).key})


def _interrupt_on_sigterm() -> None:
    """`ray job stop` and schedulers send SIGTERM: end as on Ctrl-C, saying how to resume."""
    signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGINT))


def _imported(ledger: Ledger) -> dict[str, object]:
    """How many trials came from other studies, and from which: they have no run of their own in this one."""
    origins = Counter(trial.user_attrs[IMPORTED_FROM]["study"] for trial in imported(ledger.trials()))
    return {"imported_trials": ledger.imported(), "imported_from": dict(origins)} if origins else {}


def _dim(console: Console, text: str) -> None:
    console.print(text, style="dim", highlight=False, soft_wrap=True)


def _and(spec: StudySpec) -> str:
    return ", ".join(objective.metric for objective in spec.objectives)

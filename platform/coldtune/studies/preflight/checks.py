"""What is asked of a study, checked before anything is spent."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import optuna
import torch

from coldtune import data, environment, tracking
from coldtune.config import parse
from coldtune.data import DataConfig, Dataset
from coldtune.metrics import DISTANCES, IMAGE_SCORES, build_extractor, check_objective, resolve
from coldtune.metrics.image import WINDOW as SSIM_WINDOW
from coldtune.metrics.protocol import Protocol, ProtocolConfig, Task
from coldtune.stages.trial import parse_trial
from coldtune.store.location import StoreLocation
from coldtune.studies.preflight.capacity import check_gpus, plan
from coldtune.studies.preflight.options import RunOptions
from coldtune.studies.search.sampler import listed_points
from coldtune.studies.space.space import Space
from coldtune.studies.space.validate import build_space
from coldtune.studies.spec.folder import StudyFolder
from coldtune.studies.spec.pruning_checks import check_pruning
from coldtune.studies.spec.study import StudySpec
from coldtune.studies.storage.backends import open_storage
from coldtune.studies.storage.record import promoted_from
from coldtune.studies.trials.importing import Importer, gather, is_ready
from coldtune.studies.trials.setup import Imports


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
    store: StoreLocation
    imports: Imports = field(default_factory=Imports)


def check(spec: StudySpec, options: RunOptions) -> Checked:
    """What the study needs, prepared and checked; ValueError for whatever would make it fail. Nothing is spent."""
    _check_options(options)
    check_pruning(spec)
    folder = _folder(spec, options)
    store = _store(folder, options)
    dataset = data.prepare(parse(DataConfig, spec.base["data"], "data"), options.home, options.data_dir)
    if folder.exists:
        folder.check_same_study(spec, dataset.fingerprint)
    space = build_space(spec.space, spec.base, dataset.image_shape)
    sources = {name: _source(name, spec, dataset, options) for name in sorted(space.sources())}
    protocol = _protocol(spec, space, dataset)
    checked = Checked(spec, folder, dataset, sources, space, protocol, _trials(spec, space, folder, options), store)
    if not spec.imports or is_ready(folder, options.storage):
        return checked
    return replace(checked, imports=gather(Importer(spec, space, dataset, sources, protocol), folder, options.storage))


def _check_options(options: RunOptions) -> None:
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
    if environment.local():
        here = {"CPU": float(os.cpu_count() or 1), "GPU": float(torch.cuda.device_count())}
        plan([here], options.workers, options.gpus_per_trial, 1)


def _folder(spec: StudySpec, options: RunOptions) -> StudyFolder:
    """The study's folder; ValueError where --resume names none that is there."""
    folder = StudyFolder(options.home, options.name or spec.name)
    if options.resume and not folder.exists:
        there = ", ".join(p.name for p in sorted(folder.path.parent.glob("*"))) or "none"
        raise ValueError(f"--resume: there is no study {folder.name} in {options.home} (there are: {there})")
    return folder


def _store(folder: StudyFolder, options: RunOptions) -> StoreLocation:
    """Where finished work is kept; ValueError where that cannot be reached or written."""
    as_before = options.store is None and folder.exists
    store = folder.store() if as_before else StoreLocation.in_home(options.home, options.store)
    store.check()
    return store


def _protocol(spec: StudySpec, space: Space, dataset: Dataset) -> Protocol:
    """How trials are judged; ValueError where that, or an objective under it, makes no sense."""
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
    return protocol


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
    return sum(promoted_from(trial) is not None for trial in study.get_trials(deepcopy=False))


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

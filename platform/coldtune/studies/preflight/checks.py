"""Checks of a study before anything is spent: the options, the data, the space, the protocol and the store."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import optuna
import torch

from coldtune import data, environment, presets, tracking
from coldtune.addresses import redact
from coldtune.config import parse
from coldtune.data import DataConfig, Dataset
from coldtune.data.errors import DamagedDataError
from coldtune.data.registry import OWN
from coldtune.diffusion.restorer import RestorerConfig, check_restorer
from coldtune.metrics import DISTANCES, IMAGE_SCORES, build_extractor, check_objective, resolve
from coldtune.metrics.extractors import Extractor, check_name
from coldtune.metrics.image import WINDOW as SSIM_WINDOW
from coldtune.metrics.inception import describe_inception
from coldtune.metrics.judges import advise, describe_foreign
from coldtune.metrics.protocol import Protocol, ProtocolConfig, Task, check_draws
from coldtune.places import check_folder
from coldtune.stages.compute import Compute
from coldtune.stages.trial import TRAINING_SEED, parse_trial
from coldtune.store.location import StoreLocation
from coldtune.studies.preflight.capacity import check_gpus, plan_resources
from coldtune.studies.preflight.options import RunOptions
from coldtune.studies.preflight.ray_start import check_ray
from coldtune.studies.search.sampler import listed_points
from coldtune.studies.space.space import Space
from coldtune.studies.space.validate import build_space, check_seeds, warn_of_seeds
from coldtune.studies.spec.comparisons import check_equal_within
from coldtune.studies.spec.confirmation import JOB
from coldtune.studies.spec.confirmation_checks import check_confirm
from coldtune.studies.spec.folder import StudyFolder
from coldtune.studies.spec.pruning_checks import check_pruning
from coldtune.studies.spec.race_checks import check_race
from coldtune.studies.spec.replicates import MOST_REPLICATES, check_same_race
from coldtune.studies.spec.settled_checks import check_stop_when_settled
from coldtune.studies.spec.study import StudySpec
from coldtune.studies.storage.backends import check_kind, open_storage
from coldtune.studies.storage.record import is_promoted
from coldtune.studies.trials.importing import check_imports, gather, is_ready
from coldtune.studies.trials.matching import Importer
from coldtune.studies.trials.setup import Imports

MOST_TRIALS = 1_000_000
"""The largest number of trials of a study."""

_MOST_WORKERS = 10_000
_INCEPTION = "inception"


@dataclass(frozen=True)
class Checked:
    """A study that is ready to run, because everything in it was checked.

    Attributes:
        spec: The spec of the study.
        options: How the study is run.
        folder: The study's folder, which may not exist yet.
        dataset: The prepared dataset that is restored or generated.
        sources: The prepared datasets that degradations draw images from, by name.
        space: The checked search space.
        protocol: The protocol under which trials are judged.
        trials: The number of settings in all. With one replicate, a setting is a trial.
        store: The location of finished work.
        replicates: The number of trainings of each setting. Of a race, the most.
        imports: The trials that the study takes over from other studies when it begins.
    """

    spec: StudySpec
    options: RunOptions
    folder: StudyFolder
    dataset: Dataset
    sources: Mapping[str, Dataset]
    space: Space
    protocol: Protocol
    trials: int
    store: StoreLocation
    replicates: int = 1
    imports: Imports = field(default_factory=Imports)

    @property
    def computes(self) -> tuple[Compute | None, ...]:
        """How the work was computed that its trials use. None stands for an unknown number of threads."""
        gpu, threads = self.options.gpus_per_trial > 0, self.spec.threads
        own = Compute(device="gpu") if gpu else Compute(device="cpu", threads=threads or 1)
        return (own,) if threads is not None else (own, None)


def check_study(spec: StudySpec, options: RunOptions, runs: bool = True) -> Checked:
    """Check a study and prepare its datasets, before a trial is started.

    Args:
        runs: Whether the study will run, so that its home and its store must be writable.

    Raises:
        ValueError: If the study would fail. The message names the key or the flag.
    """
    if options.race is not None:  # a race is a part of the study, and not of its run
        spec, options = spec.with_replicates(options.race), replace(options, replicates=None)
    _check_options(options, spec.threads or 1)
    check_confirm(spec, options.confirm)
    if runs and options.storage:
        check_kind(options.storage)
    if runs and options.tracking_uri:
        tracking.check_server(options.tracking_uri)
    check_pruning(spec)
    folder = _find_folder(spec, options)
    if options.confirm:
        StudyFolder(options.home, f"{JOB.format(search=folder.name)}-000000")  # raises if the name is too long
    if folder.exists:
        spec = spec.with_threads_of(folder.spec())
    store = _find_store(folder, options)
    store.check()
    if runs and not store.remote:
        check_folder(store.path, "--store", write=False)  # nothing is written before everything else was checked
    if runs and not folder.exists:  # a study that was started before may be complete, and then needs no Ray
        check_ray()
    data_config = parse(DataConfig, spec.base["data"], "data")
    check_restorer(parse(RestorerConfig, spec.base.get("restorer", {}), "restorer"), (1, *[data_config.image_size] * 2))
    space = build_space(spec.space, spec.base, presets.image_shape(spec.base))  # before the dataset is prepared
    trials = _count_trials(spec, space, folder, options)
    replicates = _count_replicates(spec, folder, options)
    if folder.exists:
        stored = folder.spec()
        check_same_race(folder.name, spec.race, stored.race, stored.replicates)
    points = listed_points(space, spec.search, spec.seed)
    check_race(spec, None if points is None else len(points), trials, options.fixed_replicates)
    if options.stop_when_settled:
        check_stop_when_settled(spec, points is not None, trials)
    if replicates > 1:
        _check_ablation(spec, options, replicates)
        check_seeds(space, replicates)
    imports = spec.imports and not is_ready(folder, options.storage)
    if imports:
        check_imports(spec.imports, folder, options.storage)
    check_name(str(spec.base["protocol"]["extractor"]), options.home)
    of_study = str(folder.start()["fingerprint"]) if folder.exists else None
    dataset = data.prepare(data_config, options.home, options.data_dir, fingerprint=of_study)
    if folder.exists:
        folder.check_same_study(spec, dataset.fingerprint)
    warn_of_seeds(space)
    sources = {name: _prepare_source(name, spec, dataset, options) for name in sorted(space.sources())}
    protocol = _build_protocol(spec, space, dataset, options)
    measures_best = space.size is None and len(spec.objectives) == 1
    if options.confirm or (measures_best and not folder.exists):  # an old study keeps the trials that it has
        _check_test_split(spec, dataset)
    if runs and not store.remote:
        store.check(writable=True)
    checked = Checked(spec, options, folder, dataset, sources, space, protocol, trials, store, replicates)
    if not imports:
        return checked
    importer = Importer(spec, space, dataset, sources, protocol, options.gpus_per_trial > 0, replicates)
    return replace(checked, imports=gather(importer, folder, options.storage))


def check_places(spec: StudySpec, options: RunOptions, write: bool) -> None:
    """Check that the study can write everything that it writes into its home.

    Args:
        write: Write into the folders. Otherwise only look at them, so that a command that is refused for another reason
            leaves nothing behind.

    Raises:
        ValueError: If a folder cannot be made or written. The message names it, and says what to do.
    """
    folder = StudyFolder(options.home, options.name or spec.name)
    for name in ("studies", "ray", *(() if options.tracking_uri else ("artifacts",))):
        check_folder(options.home / name, "--home", write)
    if folder.path.exists():
        check_folder(folder.path, f"--study {folder.name}", write)
    if not data.prepared(options.home, spec.base["data"]["name"]):  # otherwise it is only read, and may be read-only
        check_folder(options.home / "data", "--home", write)


def _check_options(options: RunOptions, threads: int) -> None:
    for flag, count, most in (
        ("--trials", options.trials, MOST_TRIALS),
        ("--replicates", options.fixed_replicates, MOST_REPLICATES),
        ("--workers", options.workers, _MOST_WORKERS),
    ):
        if count is not None and not 1 <= count <= most:
            raise ValueError(f"{flag} {count}: at least 1 and at most {most:,}")
    if options.equal_within is not None:
        check_equal_within(options.equal_within)
    check_gpus(options.workers, options.gpus_per_trial)
    if options.gpus_per_trial and threads > 1:
        raise ValueError(f"--threads {threads}: changes nothing on a GPU (--gpus-per-trial). Leave it out.")
    if options.join and (options.storage or "").startswith("sqlite"):
        raise ValueError(
            f"--join: {redact(options.storage or '')} may give one trial to two drivers, because SQLite "
            "locks no rows. Leave --storage out, or name a server such as postgresql://."
        )
    if environment.local():
        machine = {"CPU": float(os.cpu_count() or 1), "GPU": float(torch.cuda.device_count())}
        plan_resources([machine], options.workers, options.gpus_per_trial, 1, threads)


def _find_folder(spec: StudySpec, options: RunOptions) -> StudyFolder:
    folder = StudyFolder(options.home, spec.name if options.name is None else options.name)
    if not folder.exists:
        _check_name(folder.name)
    if options.resume and not folder.exists:
        names = ", ".join(p.name for p in sorted(folder.path.parent.glob("*"))) or "none"
        raise ValueError(f"--resume: there is no study {folder.name} in {options.home} (there are: {names})")
    return folder


def _check_name(name: str) -> None:
    """Raise ValueError if a new study cannot have this name, before anything is written under it."""
    if re.search(r"['\"`\\\x00-\x1f\x7f]", name):
        raise ValueError(f"--study {name!r}: allowed: a name without quotes, backslashes and control characters")


def _find_store(folder: StudyFolder, options: RunOptions) -> StoreLocation:
    as_before = options.store is None and folder.exists
    return folder.store() if as_before else StoreLocation.in_home(options.home, options.store)


def _build_protocol(spec: StudySpec, space: Space, dataset: Dataset, options: RunOptions) -> Protocol:
    """Build the protocol. ValueError if it makes no sense, or an objective makes no sense under it."""
    config = parse(ProtocolConfig, spec.base["protocol"], "protocol")
    task = parse_trial(spec.base).task
    objectives = spec.objectives if space.size is None else ()  # no trial of a list of variants is chosen by its FID
    place = options.data_dir or spec.base["data"].get("path")
    protocol = check_judge(config, dataset, task, [objective.metric for objective in objectives], place)
    if task == "restored" and min(dataset.image_shape[1:]) < SSIM_WINDOW:
        raise ValueError(
            f"data.image_size = {spec.base['data']['image_size']}: at least {SSIM_WINDOW}, the width of SSIM's window"
        )
    if config.split == "test" and space.size is None:
        raise ValueError(
            "protocol.split = 'test': a search judges by validation. The test split is for the chosen trial, once."
        )
    return protocol


def check_judge(
    config: ProtocolConfig, dataset: Dataset, task: Task, objectives: Sequence[str], place: Path | str | None = None
) -> Protocol:
    """Return the resolved protocol, after a small judge was tried on two images.

    Warn of a judge that was trained on other images.

    Args:
        config: The protocol.
        dataset: The dataset that is judged.
        task: Whether images are restored or generated.
        objectives: The metrics by which trials are chosen.
        place: The folder or file of the images, if it is known.

    Raises:
        ValueError: If the judge cannot be built, does not take the images, or has too few images for an objective. For
            a dataset of the user's own, the message says which judge it can use.
    """
    try:
        if config.extractor == _INCEPTION:  # everything else is checked before its weights are downloaded
            _resolve(config, describe_inception(), dataset, task, objectives)
        extractor = build_extractor(config.extractor, dataset.home)
        # Inception takes all images, and seconds. Code of the user's own may need the GPU of a trial.
        if config.extractor != _INCEPTION and ":" not in config.extractor:
            extractor(dataset.split(config.split).images[:2])
        protocol = _resolve(config, extractor, dataset, task, objectives)
    except ValueError as error:
        if dataset.name in OWN and not isinstance(error, DamagedDataError):
            advice = advise(dataset, place, config.extractor)
            raise ValueError(f"{str(error).rstrip('.')}. {advice}") from error
        raise
    if foreign := describe_foreign(config.extractor, dataset):
        advice = f". {advise(dataset, place, config.extractor)}" if dataset.name in OWN else ""
        warnings.warn(f"{foreign}{advice}", stacklevel=2)
    return protocol


def _resolve(
    config: ProtocolConfig, extractor: Extractor, dataset: Dataset, task: Task, objectives: Sequence[str]
) -> Protocol:
    protocol = resolve(config, extractor, dataset, task)
    check_draws(config, protocol)
    for metric in objectives:
        _check_objective(metric, protocol, task)
    return protocol


def _check_test_split(spec: StudySpec, dataset: Dataset) -> None:
    """Raise ValueError if the study's settings cannot be judged on the test split, where the best one is judged."""
    config = parse(ProtocolConfig, {**spec.base["protocol"], "split": "test"}, "protocol")
    try:
        resolve(config, build_extractor(config.extractor, dataset.home), dataset, parse_trial(spec.base).task)
    except ValueError as error:
        raise ValueError(f"{error} (the best trial is measured on the test split)") from None


def _check_objective(metric: str, protocol: Protocol, task: Task) -> None:
    check_objective(protocol, metric)
    if task == "generated" and metric in IMAGE_SCORES:
        raise ValueError(
            f"objective.metric = {metric!r}: compares images with their originals, and generated images have none; "
            f"allowed: {', '.join(DISTANCES)}, nfe"
        )


def _count_trials(spec: StudySpec, space: Space, folder: StudyFolder, options: RunOptions) -> int:
    """Return the number of trials: of the command line, or else of the last start, or else the default.

    The default is every point of a list of variants or a grid, and otherwise the job's default.
    """
    if space.size is not None and options.trials not in (None, space.size):
        raise ValueError(
            f"--trials {options.trials}: this study has {space.size} variants, each of which is asked once"
        )
    points = listed_points(space, spec.search, spec.seed)
    if points is not None and (options.trials or 0) > len(points) + _count_promoted(spec, folder, options):
        raise ValueError(f"--trials {options.trials}: the grid has {len(points):,} points, each of which is asked once")
    last = int(folder.start()["trials"]) if folder.exists else None
    return options.trials or last or (len(points) if points is not None else options.default_trials)


def _count_replicates(spec: StudySpec, folder: StudyFolder, options: RunOptions) -> int:
    """Return the trainings of each setting: of the command line, or else the larger of the spec and the last start."""
    if options.fixed_replicates is not None:
        return options.fixed_replicates
    return max(spec.replicates, int(folder.start()["replicates"]) if folder.exists else 1)


def _count_promoted(spec: StudySpec, folder: StudyFolder, options: RunOptions) -> int:
    """Return how many trials continue pruned trials. They come on top of the points of a grid."""
    if spec.pruning.kind == "none" or not folder.exists:
        return 0
    study = optuna.load_study(study_name=folder.name, storage=open_storage(folder.path, options.storage))
    return sum(is_promoted(trial) for trial in study.get_trials(deepcopy=False))


def _check_ablation(spec: StudySpec, options: RunOptions, replicates: int) -> None:
    """Raise ValueError if an ablation that takes training seeds back is given several trainings of each arm."""
    record = spec.ablation
    if record is not None and any(TRAINING_SEED in change.keys for change in record.changes.values()):
        flags = ("--replicates", replicates)
        command = environment.coldtune_command("ablate", options.home, record.study, flags=flags)
        raise ValueError(
            f"--replicates {replicates}: this ablation takes {TRAINING_SEED} back, so it compares networks of one "
            f"training. Begin another, which leaves the seeds out: `{command}`"
        )


def _prepare_source(name: str, spec: StudySpec, dataset: Dataset, options: RunOptions) -> Dataset:
    """Prepare a dataset that degradations draw images from, like the dataset that is restored."""
    config = parse(DataConfig, {**spec.base["data"], "name": name, "path": None}, "degradation.source")
    source = data.prepare(config, options.home, options.data_dir)
    if source.image_shape != dataset.image_shape:
        raise ValueError(
            f"degradation.source = {name!r}: its images are {'x'.join(map(str, source.image_shape))}, those of "
            f"{dataset.name!r} {'x'.join(map(str, dataset.image_shape))}; both must be equal"
        )
    return source

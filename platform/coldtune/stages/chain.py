"""A trial as a chain of stages: train -> sample -> measure, each found in the store or computed and kept there."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from coldtune.config import plain
from coldtune.data import Dataset
from coldtune.diffusion import build_degradation, draws, nfe, source_of
from coldtune.diffusion.degradations import Degradation, Draw
from coldtune.diffusion.priors import Prior, State, build_prior
from coldtune.diffusion.samplers import Restore, SamplerConfig
from coldtune.metrics import (
    DISTANCES,
    Judgement,
    build_extractor,
    judge,
    reference_features,
    reference_statistics,
    resolve,
)
from coldtune.metrics.extractors import Extractor
from coldtune.metrics.protocol import Protocol, select_reference
from coldtune.stages.compute import Compute, cache_key
from coldtune.stages.keys import DEGRADED, PLAIN, completion_key, measure_key, prior_key, sample_key, train_key
from coldtune.stages.reuse import StageRecord
from coldtune.stages.rungs import trials_at_rungs
from coldtune.stages.sampled_images import degraded_images, sampled_images
from coldtune.stages.trial import RungConfig, TrialConfig
from coldtune.stages.weights import Weights, load_once
from coldtune.store.cache import StoreCache
from coldtune.store.checkpoints import StoreCheckpoints
from coldtune.store.store import Entry, Store
from coldtune.tensor_files import save_tensors
from coldtune.training import load_restorer, read_history
from coldtune.training.device import arithmetic
from coldtune.training.loop import Report, TrainingTask, TrainResult
from coldtune.training.step import StaticRestorer
from coldtune.training.way import EAGER, CompileError, Way, choose_way, record_failure, use_compile_cache

Train = Callable[[TrainingTask, StoreCheckpoints, Report], TrainResult]
"""A function that runs a training: in this process, or with several workers."""

DRAWS = 1  # the random stream of the protocol's draws: one draw per image index, the same for every trial

# Besides its own sampler, every trial shows the paper's two baselines, with the restorer at the end of its training. So
# all trials of a training share them, whatever weights their own samplers take.
BASELINES = {"direct": SamplerConfig(algorithm="direct"), "naive": SamplerConfig(algorithm="naive")}
SAMPLED = "sampled"


@dataclass(frozen=True)
class Outcome:
    """The results of a finished trial: its values under one protocol, its images and its cost.

    Attributes:
        judgements: By set of images: those of the trial's own sampler (`sampled`), of R(x_T, T) (`direct`), of
            Algorithm 1 (`naive`), and x_T itself (`degraded`). All sets use the same images and draws.
        nfe: Network evaluations for each sampled image.
        images, measured: The folders of the sets and of their judgements in the store.
        rungs: By step, the judgement of the trial's own sampler at each rung.
        draws: By further protocol seed, the judgement of the trial's own sampler (`Chain.judge_draws`).
    """

    judgements: Mapping[str, Judgement]
    nfe: int
    protocol: Protocol
    stages: tuple[StageRecord, ...]
    images: Mapping[str, Path] = field(default_factory=dict)
    measured: Mapping[str, Path] = field(default_factory=dict)
    checkpoint: Path = Path()
    rungs: Mapping[int, Judgement] = field(default_factory=dict)
    draws: Mapping[int, Judgement] = field(default_factory=dict)

    @property
    def metrics(self) -> dict[str, float]:
        """All values by a flat name.

        `fid`, `kid`, `ssim`, ... are those of the trial's own sampler. `fid_low` and `fid_high` are the bounds of the
        95 % interval. The suffixes `_direct`, `_naive` and `_degraded` mark the other sets. `nfe` is included.
        """
        flat: dict[str, float] = {}
        own_first = {SAMPLED: self.judgements[SAMPLED], **self.judgements}  # the order in which MLflow lists them
        for name, judgement in own_first.items():
            suffix = "" if name == SAMPLED else f"_{name}"
            flat |= {f"{metric}{suffix}": value.value for metric, value in judgement.values.items()}
        for metric, value in self.judgements[SAMPLED].values.items():
            if value.low is not None and value.high is not None:
                flat |= {f"{metric}_low": value.low, f"{metric}_high": value.high}
        return {**flat, "nfe": float(self.nfe)}


def found_only(task: TrainingTask, checkpoints: StoreCheckpoints, report: Report) -> TrainResult:
    """Refuse to train, as the `Train` of callers that only look for finished restorers.

    Raises:
        ValueError: Always. It names the training, the store, and the nearest checkpoint in it.
    """
    latest = checkpoints.latest(task.training.steps)
    if damage := Store(checkpoints.at).damage(f"{checkpoints.KIND}/{checkpoints.key}"):
        raise ValueError(
            f"its restorer {damage} in {checkpoints.at.shown}. Run a study that trains it again, or restore it from a "
            "copy. `coldtune store verify` checks all entries."
        )
    nearest = f"; there is one at step {latest[0]:,}" if latest else ""
    raise ValueError(
        f"training.steps = {task.training.steps}: no restorer of this training ({checkpoints.key[:12]}) is in "
        f"{checkpoints.at.shown}{nearest}; run the study that trains it, or name the home where it was trained"
    )


class Chain:
    """The stages of a trial on a prepared dataset, in a store.

    The number of CPU threads of this process is a part of every key, so set it before (`use_threads`).

    Args:
        source: The prepared dataset from which the degradation draws images (`coldtune.diffusion.source_of`). None for
            most degradations.
        found: Finished work that was computed in one of these ways is used if there is none of this process's way.
            None stands for work of an unknown number of threads.
        workers: The processes that train together.

    Raises:
        ValueError: If the configuration does not fit the images, or `source` is not the degradation's.
    """

    def __init__(
        self,
        config: TrialConfig,
        dataset: Dataset,
        store: Store,
        device: torch.device | str = "cpu",
        source: Dataset | None = None,
        found: Sequence[Compute | None] = (),
        workers: int = 1,
    ) -> None:
        config.check(dataset.image_shape)
        self.source = _check_source(config, source)
        self.config, self.dataset, self.store, self.device = config, dataset, store, torch.device(device)
        source_images = source.split("train").images if source else None
        self.degradation: Degradation = build_degradation(config.degradation, dataset.image_shape, source_images)
        self.extractor: Extractor = build_extractor(config.protocol.extractor, dataset.home)
        self.protocol: Protocol = resolve(config.protocol, self.extractor, dataset, config.task)
        self.prior: Prior = build_prior(config.prior or PLAIN, self.degradation)
        self.compute = Compute.here(self.device)
        self._found, self._workers = tuple(found), workers
        # Of judging. It never uses the way of the network, so trials of all ways share its references.
        self._computes = tuple(dict.fromkeys((self.compute, *self._found)))
        self._trained: str | None = None
        self._earlier: dict[int, Path] = {}
        self._choose(choose_way(config.training.compile, self.device, workers))
        self.records: list[StageRecord] = []

    def _choose(self, way: Way) -> None:
        """Train and sample in a way from now on."""
        self.way = way
        of_network = Compute.here(self.device, way, self.config.training.dtype)
        self._network_computes = tuple(dict.fromkeys((of_network, *self._found)))
        if way.compiled and not self.store.at.remote:
            use_compile_cache(self.store.root.parent / "compiled")

    @property
    def nfe(self) -> int:
        """Network evaluations for each image that the trial's own sampler makes."""
        return nfe(self.config.sampler, self.degradation.steps)

    def run(
        self,
        train: Train,
        report: Report,
        progress: Callable[[str, float], None] = lambda *_: None,
        replay: Report = lambda *_: None,
        on_rung: Callable[[int, Judgement], None] = lambda *_: None,
    ) -> Outcome:
        """Find or compute every stage.

        Args:
            report: Called with the metrics of the training while it runs.
            progress: Called with the stage and the finished share of it, 0..1. The stage `sample_40` is the sampling
                at the rung 40.
            replay: Called with the metrics of a training that was found, so that the trial's run shows the whole
                curve.
            on_rung: Called with each rung's step and judgement before the training continues. An exception that it
                raises ends the trial there.
        """
        rungs = self._run_rungs(train, report, progress, replay, on_rung)
        reached = max(rungs, default=0)
        checkpoint = self.train(train, report, _replay_after(reached, replay), self._training_seconds(reached))
        self.train_earlier(train, report)
        judgements: dict[str, Judgement] = {}
        images: dict[str, Path] = {}
        measured: dict[str, Path] = {}
        sets: dict[str, SamplerConfig | None] = {DEGRADED: None, **BASELINES, SAMPLED: self.config.sampler}
        for number, (name, sampler) in enumerate(sets.items()):
            advance = _set_progress(progress, number, len(sets))
            advance(0.0)  # even if the images are found, because judging them may take long
            entry = self.sample(name, sampler, checkpoint, advance)
            images[name], measured[name] = entry.path, self.measure(name, entry)
            judgements[name] = Judgement.load(measured[name])
        return Outcome(judgements, self.nfe, self.protocol, tuple(self.records), images, measured, checkpoint, rungs)

    def _run_rungs(
        self,
        train: Train,
        report: Report,
        progress: Callable[[str, float], None],
        replay: Report,
        on_rung: Callable[[int, Judgement], None],
    ) -> dict[int, Judgement]:
        """Train up to each rung and judge there. Return the judgements by step."""
        judged: dict[int, Judgement] = {}
        for shorter in trials_at_rungs(self.config, self.protocol.num_images):
            step = shorter.training.steps
            part = self._part(shorter)
            reached = max(judged, default=0)
            checkpoint = part.train(train, report, _replay_after(reached, replay), self._training_seconds(reached))
            self._follow(part)
            entry = part.sample(SAMPLED, shorter.sampler, checkpoint, partial(progress, f"sample_{step}"))
            judged[step] = Judgement.load(part.measure(SAMPLED, entry))
            self.records += [replace(record, stage=f"{record.stage}_{step}") for record in part.records]
            on_rung(step, judged[step])
        return judged

    def judge_draws(self, outcome: Outcome, progress: Callable[[str, float], None] = lambda *_: None) -> Outcome:
        """Judge the trial's own sampler again under each further protocol seed, and return the outcome with these.

        The network and the judged images stay the same (`check_draws`), so only the draws differ.

        Args:
            progress: As in `run`.
        """
        config, judged = self.config, {}
        for seed, part in self._drawn_parts().items():
            entry = part.sample(SAMPLED, config.sampler, outcome.checkpoint, partial(progress, "sample"))
            judged[seed] = Judgement.load(part.measure(SAMPLED, entry))
            self.records += [replace(record, stage=f"{record.stage}_seed_{seed}") for record in part.records]
        return replace(outcome, stages=tuple(self.records), draws=judged)

    def _drawn_parts(self) -> dict[int, Chain]:
        """Return the chain of the judgement under each further protocol seed."""
        config, parts = self.config, {}
        for seed in config.protocol.further_seeds:
            protocol = config.protocol.without_further_draws().model_copy(update={"seed": seed})
            parts[seed] = self._part(config.model_copy(update={"protocol": protocol, "rungs": RungConfig()}))
        return parts

    def _part(self, config: TrialConfig) -> Chain:
        """Return the chain of another judgement of this trial's training, in the same way."""
        part = Chain(config, self.dataset, self.store, self.device, self.source, self._found, self._workers)
        part._choose(self.way)
        part._trained, part._earlier = self.train_key(), self._earlier
        return part

    def _follow(self, part: Chain) -> None:
        """Go on in the way of the shorter trial, which gives up its way if it cannot be compiled."""
        if part.way != self.way:
            self._choose(part.way)
            self._trained = part._trained

    def _training_seconds(self, step: int) -> float:
        """Return the seconds of training up to a rung, 0 for step 0."""
        return StoreCheckpoints(self.store.at, self.train_key(), final=step).seconds(step) if step else 0.0

    def train_key(self) -> str:
        """Return the key of the trial's training: of finished or begun work, or of the training to come."""
        if self._trained is None:
            keys = [train_key(self.config, self.dataset, self.source, compute) for compute in self._network_computes]
            self._trained = keys[0] if len(keys) == 1 else self._furthest(keys)
        return self._trained

    def _furthest(self, keys: Sequence[str]) -> str:
        """Return the key of the training that came furthest, the first of equals."""
        steps = self.config.training.steps

        def reached(key: str) -> int:
            latest = StoreCheckpoints(self.store.at, key, final=steps).latest(steps)
            return latest[0] if latest else 0

        return max(keys, key=reached)

    def sample_key(self, sampler: SamplerConfig | None) -> str:
        """Return the key of a set of images: of a finished set, or of the set to come."""
        trained = self.train_key() if sampler else None
        of = (self.config, self.dataset, sampler, self.source)
        return self._first("sample", (sample_key(*of, compute, trained) for compute in self._network_computes))

    def measure_key(self, images: str) -> str:
        """Return the key of the values of a set of images, given by its key: of finished values or of those to come."""
        return self._first("measure", (measure_key(images, self.protocol, compute) for compute in self._computes))

    def _first(self, kind: str, keys: Iterable[str]) -> str:
        """Return the first key with an entry in the store, or the first key of all."""
        own, *others = keys
        if not others or self.store.exists(kind, own):
            return own
        return next((key for key in others if self.store.exists(kind, key)), own)

    def train(self, train: Train, report: Report, replay: Report = lambda *_: None, recorded: float = 0.0) -> Path:
        """Return the checkpoint at `training.steps`, after training from the nearest earlier checkpoint if needed.

        Of several trials that want the same training at once, one trains and the others wait for its checkpoint.

        Args:
            recorded: Seconds of this training that the trial's records contain already, up to its last rung.

        Raises:
            ValueError: If the step cannot be compiled as in the part of the training that exists.
        """
        return self._train_to(self.config.training.steps, train, report, replay, recorded)

    def train_earlier(self, train: Train, report: Report) -> None:
        """Ensure that the earlier steps of the training exist that the trial's own sampler needs.

        The training keeps them. They are trained again if they are gone, or if the training had ended before it was
        told to keep them.
        """
        end, sampler = self.config.training.steps, self.config.sampler
        earlier = Weights.of(self.config.training, sampler).steps
        if earlier == (end,) or all(
            self.store.find("sample", part.sample_key(sampler)) is not None
            for part in (self, *self._drawn_parts().values())
        ):
            return
        for step in earlier:
            if step < end:
                self._earlier[step] = self._find_step(step) or self._train_to(step, train, report)

    def _find_step(self, step: int) -> Path | None:
        """Return an undamaged checkpoint of this training, and record its use. Nobody else is waited for.

        An average needs dozens of steps. A lease for each of them took longer than the average itself.
        """
        entry = self.store.find("train", StoreCheckpoints.entry_key(self.train_key(), step))
        if entry is None:
            return None
        self.store.record_use(entry)
        return entry.path

    def _train_to(
        self, steps: int, train: Train, report: Report, replay: Report = lambda *_: None, recorded: float = 0.0
    ) -> Path:
        """Return the checkpoint of the step `steps`."""
        try:
            return self._train_leased(steps, train, report, replay, recorded)
        except CompileError as error:
            if last := StoreCheckpoints(self.store.at, self.train_key(), final=steps).latest(steps):
                raise ValueError(
                    f"training.compile = 'auto': {error}. Step {last[0]:,} of this training was reached in the way: "
                    f"{self.way}. A training keeps its way. Begin a new one with training.compile = 'off'."
                ) from error
            self._give_up_way(error)
            self._trained = None
            return self._train_leased(steps, train, report, replay, recorded)

    def _give_up_way(self, error: CompileError) -> None:
        """Compute everything that is still to come eagerly."""
        warnings.warn(f"training.compile = 'auto': {error}. The trial goes on eagerly.", stacklevel=3)
        record_failure(error)
        self._choose(EAGER)

    def _train_leased(self, steps: int, train: Train, report: Report, replay: Report, recorded: float) -> Path:
        key, snapshots = self.train_key(), self.config.training.snapshot_every
        checkpoints = StoreCheckpoints(self.store.at, key, final=steps, by=self.store.by, snapshot_every=snapshots)
        with self.store.lease("train", key, done=lambda: checkpoints.has(steps)):
            path = self._train(key, checkpoints, train, report, replay, recorded)
        self.store.record_use(f"train/{key}/{path.name}")
        return path

    def _train(
        self,
        key: str,
        checkpoints: StoreCheckpoints,
        train: Train,
        report: Report,
        replay: Report,
        recorded: float,
    ) -> Path:
        steps = checkpoints.final
        at_end = steps == self.config.training.steps
        last = checkpoints.latest(steps)
        earlier = max(checkpoints.seconds(last[0]) - recorded, 0.0) if last else 0.0
        by = checkpoints.maker(last[0]) if last else None
        for past in read_history(last[1]) if last else ():
            replay(int(past["step"]), {name: value for name, value in past.items() if name != "step"})
        found = last is not None and last[0] == steps
        # The time up to an earlier step that is found is a part of the time of the whole training.
        if found and at_end:
            self.records.append(StageRecord("train", f"{key}/{steps}", True, earlier, by=by))
        elif not found:
            result = train(self._task(steps), checkpoints, report)
            last = checkpoints.latest(steps)
            stage = "train" if at_end else f"train_{steps}"
            self.records.append(StageRecord(stage, f"{key}/{steps}", False, result.seconds, earlier, by))
        assert last is not None
        assert last[0] == steps, f"the training ended at step {last[0]} of {steps}"
        return last[1]

    def sample(
        self,
        name: str,
        sampler: SamplerConfig | None,
        checkpoint: Path,
        progress: Callable[[float], None] = lambda _: None,
    ) -> Entry:
        """Return the protocol's images, degraded to x_T and sampled back, as uint8.

        Args:
            name: The name of the set, for the records.
            sampler: None leaves the images degraded.
        """
        try:
            return self._kept_sample(name, sampler, checkpoint, progress)
        except CompileError as error:
            self._give_up_way(error)
            return self._kept_sample(name, sampler, checkpoint, progress)

    def _kept_sample(
        self, name: str, sampler: SamplerConfig | None, checkpoint: Path, progress: Callable[[float], None]
    ) -> Entry:
        key = self.sample_key(sampler)
        started = time.monotonic()

        def build(directory: Path) -> dict[str, Any]:
            out, strip = self._sample(sampler, checkpoint, progress)
            self._recheck_data()
            save_tensors({"images": out}, directory / "images.safetensors")
            if strip:
                save_tensors({f"{s:06d}": x for s, x in strip.items()}, directory / "strip.safetensors")
            return {"sampler": plain(sampler) if sampler else None, "seconds": time.monotonic() - started}

        entry, found = self.store.get("sample", key, build)
        seconds = float(entry.about["seconds"]) if found else time.monotonic() - started
        if sampler is not None:
            stage = _record_name("sample", name)
            self.records.append(StageRecord(stage, key, found, seconds, by=entry.about.get("by")))
        return entry

    def measure(self, name: str, images: Entry) -> Path:
        """Judge a set of images under the trial's protocol and return the folder of its Judgement."""
        key = self.measure_key(images.key)
        started = time.monotonic()

        def build(directory: Path) -> dict[str, Any]:
            self._judge(images, DISTANCES).save(directory)
            return {"images": images.key, "seconds": time.monotonic() - started}

        entry, found = self.store.get("measure", key, build)
        seconds = float(entry.about["seconds"]) if found else time.monotonic() - started
        stage = _record_name("measure", name)
        self.records.append(StageRecord(stage, key, found, seconds, by=entry.about.get("by")))
        return self._complete(entry, images).path if found else entry.path

    def _complete(self, entry: Entry, images: Entry) -> Entry:
        """Return an entry with the values of `entry` and all metrics that were added later.

        Only what is missing is measured, on the images that are there. `entry` itself stays as it is, because other
        versions of coldtune may use it.
        """
        judgement = Judgement.load(entry.path)
        missing = judgement.missing()
        if not missing:
            return entry
        started = time.monotonic()

        def build(directory: Path) -> dict[str, Any]:
            judgement.completed(self._judge(images, missing)).save(directory)
            return {"images": images.key, "completes": entry.key, "seconds": time.monotonic() - started}

        return self.store.get("measure", completion_key(entry.key, missing, self.compute), build)[0]

    def is_measured(self, images: str) -> bool:
        """Return True if the store holds every metric of a set of images, given by its sample key."""
        entry = self.store.find("measure", self.measure_key(images))
        if entry is None:
            return False
        missing = Judgement.load(entry.path).missing()
        return not missing or self.store.exists("measure", completion_key(entry.key, missing, self.compute))

    def clean(self) -> Tensor | None:
        """Return the original of each restored image, uint8 (N, C, H, W). None if images are generated."""
        restored = self.protocol.task == "restored"
        return self._split_images()[self.protocol.image_indices()] if restored else None

    def _judge(self, images: Entry, names: Iterable[str]) -> Judgement:
        """Judge a set of images by the distances among `names` and by every image score."""
        of_reference = (self.extractor, select_reference(self.dataset, self.protocol), self.protocol, self.cache())
        features = reference_features(*of_reference, device=self.device)
        judgement = judge(
            load_file(images.path / "images.safetensors")["images"],
            self.clean(),
            self.extractor,
            reference_statistics(*of_reference, features=features),
            self.protocol,
            features,
            tuple(name for name in names if name in DISTANCES),
            device=self.device,
        )
        self._recheck_data()
        return judgement

    def _prior_state(self) -> State:
        """Return the parameters that the prior learned from the training images. All trials share them."""
        if not self.prior.learns:
            return {}

        def fit() -> dict[str, Tensor]:
            return dict(self.prior.fit(self.dataset.split("train").images, seed=self.config.protocol.seed))

        return StoreCache(self.store).get("prior", prior_key(self.config, self.dataset, self.compute), fit)

    def cache(self) -> StoreCache:
        """Return the cache of the tensors that this process's way of computing decides."""
        return StoreCache(self.store, partial(cache_key, compute=self.compute))

    def _task(self, steps: int) -> TrainingTask:
        return TrainingTask(
            data=self.config.data,
            dataset_path=str(self.dataset.path),
            degradation=self.config.degradation,
            restorer=self.config.restorer,
            training=self.config.training.model_copy(update={"steps": steps}),
            source_path=str(self.source.path) if self.source else None,
            way=self.way,
        )

    def _recheck_data(self) -> None:
        """Raise DamagedDataError instead of keeping a result whose pixels have changed since they were verified."""
        for dataset in (self.dataset, self.source):
            if dataset is not None:
                dataset.recheck()

    def _split_images(self) -> Tensor:
        return self.dataset.split(self.config.protocol.split).images

    def _sample(
        self, sampler: SamplerConfig | None, checkpoint: Path, progress: Callable[[float], None], batch_size: int = 256
    ) -> tuple[Tensor, dict[int, Tensor]]:
        """Return uint8 images (N, C, H, W), and by s the iterates x_s of the first few (empty without a sampler)."""
        indices, state = self.protocol.image_indices(), self._prior_state()
        restorer = self._restorer(sampler, checkpoint) if sampler is not None else None

        def start(chunk: Tensor) -> tuple[Tensor, Tensor, Draw | None]:
            seeds = draws.derive(self.config.protocol.seed, DRAWS, chunk).to(self.device)
            originals = self._split_images()[chunk].to(self.device) if self.prior.takes_images else None
            return seeds, *self.prior.start(seeds, state, originals)

        # The eager way always samples in float32.
        dtype = "float32" if self.way == EAGER else self.config.training.dtype
        with arithmetic(dtype, self.device):
            if sampler is None or restorer is None:
                return degraded_images(indices, start, batch_size), {}
            return sampled_images(indices, start, restorer, self.degradation, sampler, progress, batch_size)

    def _restorer(self, sampler: SamplerConfig, checkpoint: Path) -> Restore:
        """Return the restorer with the weights of a sampler, computed in this trial's way.

        Args:
            checkpoint: The end of the training.
        """
        config = self.config

        def prepare(network: nn.Module) -> Restore:
            return network if self.way == EAGER else StaticRestorer(network, self.way, config.training.dtype)

        load = partial(
            load_restorer,
            restorer=config.restorer,
            image_shape=self.dataset.image_shape,
            steps=self.degradation.steps,
            device=self.device,
        )
        checkpoints = {**self._earlier, config.training.steps: checkpoint}
        weights = Weights.of(config.training, sampler)
        if self.way != EAGER or self.device.type != "cpu":
            return weights.restorer(checkpoints, load, prepare)
        of_network = (weights, config.restorer, self.dataset.image_shape, self.degradation.steps)
        folders = [checkpoints[step] for step in weights.steps]
        return load_once(of_network, folders, partial(weights.restorer, checkpoints, load, prepare))


def _check_source(config: TrialConfig, source: Dataset | None) -> Dataset | None:
    name = source_of(config.degradation)
    if name != (source.name if source else None):
        raise ValueError(
            f"degradation.source = {name!r}: the images handed in are those of {source.name if source else 'nothing'}"
        )
    return source


def _record_name(stage: str, images: str) -> str:
    return stage if images == SAMPLED else f"{stage}_{images}"


def _replay_after(step: int, replay: Report) -> Report:
    """Return `replay`, limited to reports after `step`."""
    return lambda at, past: replay(at, past) if at > step else None


def _set_progress(progress: Callable[[str, float], None], number: int, of: int) -> Callable[[float], None]:
    """Return a function that reports the progress of the set `number` as a share of all `of` sets."""
    return lambda share: progress("sample", (number + share) / of)

"""The evaluation of finished trials, whose restorers are in the store, and of pictures from elsewhere."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from coldtune.config import parse, plain
from coldtune.data import Dataset
from coldtune.data.progress import Bars, show
from coldtune.diffusion import nfe
from coldtune.diffusion.samplers import SamplerConfig
from coldtune.metrics import (
    DISTANCES,
    Comparison,
    Judgement,
    ProtocolConfig,
    check_same,
    compare,
    judge,
    reference_features,
    reference_statistics,
    resolve,
)
from coldtune.metrics.cache import Cache
from coldtune.metrics.extractors import Extractor
from coldtune.metrics.protocol import LEAST_IMAGES, select_reference
from coldtune.reports.evaluation import JudgedSet, evaluation_record
from coldtune.stages.chain import BASELINES, SAMPLED, Chain, found_only
from coldtune.stages.compute import Compute
from coldtune.stages.evaluation_progress import count_evaluations, count_unjudged_images, find_unsampled, with_bar
from coldtune.stages.keys import DEGRADED
from coldtune.stages.trial import RungConfig, TrialConfig
from coldtune.store.store import Store

Split = Literal["train", "validation", "test"]

COMPARED = ("fid", "kid", "rmse")
NOTICEABLE = 0.01
"""The relative difference of the degraded images' FID above which two trials do not solve the same task."""

_NAME_LETTERS = 24  # of a name beside a progress bar, so that both fit into 80 columns


@dataclass(frozen=True)
class FinishedTrial:
    """A finished trial: its name for people, its configuration, and the dataset that it was trained on.

    Attributes:
        source: The dataset from which its degradation draws images. None for most degradations.
        computed: How its finished work may have been computed. By default, nothing is known about that.
    """

    name: str
    config: TrialConfig
    dataset: Dataset
    source: Dataset | None = None
    computed: tuple[Compute | None, ...] = (None, Compute(device="gpu"))


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Sets of images judged under one protocol.

    Attributes:
        title: A line that describes the sets.
        sets: `degraded`, `direct`, `sampled` and `naive` (Algorithm 1) of a trial, or `images` for pictures from
            elsewhere.
        config: The trial's configuration, with the protocol under which it was judged here.
    """

    name: str
    title: str
    sets: tuple[JudgedSet, ...]
    config: TrialConfig | None = None

    def __getitem__(self, name: str) -> Judgement:
        return {item.name: item.judgement for item in self.sets}[name]

    def record(self) -> dict[str, Any]:
        """Return everything known about the evaluation, ready for JSON."""
        config = plain(self.config) if self.config else None
        return {"name": self.name, **evaluation_record(self.sets), "config": config}


def with_protocol(
    config: TrialConfig,
    split: str | None = None,
    num_images: int | Literal["all"] | None = None,
    extractor: str | None = None,
    seed: int | None = None,
    reference: str | None = None,
) -> TrialConfig:
    """Return `config` with a changed protocol. An argument that is None keeps the trial's own value.

    Args:
        num_images: "all" takes all images of the split.

    Raises:
        ValueError: If a value is not allowed.
    """
    changes: dict[str, Any] = {
        "split": split, "num_images": num_images, "extractor": extractor, "seed": seed, "reference": reference
    }  # fmt: skip
    tree = plain(config.protocol) | {name: value for name, value in changes.items() if value is not None}
    if num_images == "all":
        tree["num_images"] = None
    return config.model_copy(update={"protocol": parse(ProtocolConfig, tree, "protocol")})


def evaluate_runs(
    runs: Sequence[FinishedTrial], store: Store, device: torch.device | str = "cpu", progress: bool = True
) -> list[Evaluation]:
    """Judge every set of images of each run under the run's own protocol.

    Sets that `store` does not hold are sampled and judged now. Restorers must be in the store: nothing is trained. All
    runs are checked before any image is sampled.

    Args:
        progress: Show progress bars on standard error, if that is a terminal.

    Raises:
        ValueError: If a run is named twice, a restorer is missing, the runs' protocols differ (the message names the
            part), a protocol cannot be resolved, or an extractor does not accept such images.
    """
    if twice := [run.name for i, run in enumerate(runs) if run.name in [other.name for other in runs[:i]]]:
        raise ValueError(f"{twice[0]}: is named twice, and a run cannot be compared with itself")
    chains = [_chain(run, store, device) for run in runs]
    for run, chain in zip(runs, chains, strict=True):
        with _about(f"{runs[0].name} and {run.name}"):
            check_same([chains[0].protocol, chain.protocol])
    with show(progress) as bars:
        return [_evaluate(run, chain, bars) for run, chain in zip(runs, chains, strict=True)]


def evaluate_images(
    name: str,
    images: Tensor,
    dataset: Dataset,
    extractor: Extractor,
    cache: Cache,
    split: Split = "validation",
    seed: int = 0,
    device: torch.device | str = "cpu",
    progress: bool = True,
) -> Evaluation:
    """Judge pictures from elsewhere against a split of a dataset, like generated images.

    Args:
        images: uint8 (N, C, H, W).
        cache: Keeps the reference's statistics.
        seed: Seed of FID-infinity's subsets and MIND's directions.
        progress: Show progress bars on standard error, if that is a terminal.

    Raises:
        ValueError: If the pictures are not uint8 images of the dataset's shape, or too few for a metric.
    """
    if images.dtype != torch.uint8 or images.shape[1:] != dataset.image_shape:
        raise ValueError(
            f"{name}: images are {images.dtype} {tuple(images.shape)}; allowed with {dataset.name} is uint8 "
            f"(N, {', '.join(map(str, dataset.image_shape))})"
        )
    if len(images) < LEAST_IMAGES:
        raise ValueError(f"{name}: {len(images)} images; a judgement needs at least {LEAST_IMAGES}, and FID 4 d")
    config = ProtocolConfig(extractor=extractor.name, split=split, num_images=len(images), seed=seed)
    protocol = resolve(config, extractor, dataset, "generated")
    of_reference = (select_reference(dataset, protocol), protocol, cache)
    with _about(name), show(progress) as bars:
        shown = with_bar(extractor, bars, f"features of {dataset.name}", protocol.reference_images)
        features = reference_features(shown, *of_reference, device=device)
        reference = reference_statistics(shown, *of_reference, features=features)
        shown = with_bar(extractor, bars, f"judge {name[-_NAME_LETTERS:]}", len(images))
        judgement = judge(images, None, shown, reference, protocol, features, tuple(DISTANCES), device=device)
    title = f"{name}: {len(images):,} pictures against {dataset.name}/{split}"
    return Evaluation(name, title, (JudgedSet("images", "images", judgement),))


def compare_sampled(other: Evaluation, first: Evaluation) -> list[Comparison]:
    """Compare the sampled images of two evaluations by FID, KID and, for restored images, RMSE.

    Image i of `other` is paired with image i of `first`.

    Raises:
        ValueError: If the protocols differ. The message names the part that differs.
    """
    a, b = other[SAMPLED], first[SAMPLED]
    metrics = [name for name in COMPARED if name in a.values and name in b.values]
    return [compare(a, b, metric, (other.name, first.name)) for metric in metrics]


def warn_unequal_starts(other: Evaluation, first: Evaluation) -> str:
    """Return a warning if two evaluations restore images that are not equally degraded, otherwise "".

    The weaker a degradation, the better every sampler looks. So a difference between unequal starts is not due to the
    sampler or the restorer alone. The measure is the FID of the degraded images, which may differ by 1 %. Generated
    images have no such start.
    """
    if first[DEGRADED].protocol.task == "generated":
        return ""
    fids = [evaluation[DEGRADED].values["fid"].value for evaluation in (other, first)]
    if abs(fids[0] - fids[1]) <= NOTICEABLE * max(fids):
        return ""
    return (
        f"{other.name} and {first.name} do not start from equally degraded images (FID {fids[0]:,.4g} and "
        f"{fids[1]:,.4g}): that is part of every difference between them"
    )


@contextmanager
def _about(name: str) -> Iterator[None]:
    """Prefix a ValueError of the body with the name of the run."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _chain(run: FinishedTrial, store: Store, device: torch.device | str) -> Chain:
    """Return the run's chain without its rungs, after checking it.

    Raises:
        ValueError: If its restorer is not in the store, or the extractor does not accept such images.
    """
    config = run.config.model_copy(update={"rungs": RungConfig()})
    with _about(run.name), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"store entry train/.* is damaged")  # the error says so
        chain = Chain(config, run.dataset, store, device, run.source, run.computed)
        chain.train(found_only, lambda *_: None)
        chain.train_earlier(found_only, lambda *_: None)
        chain.extractor(run.dataset.split(config.protocol.split).images[:2].to(device))
    return chain


def _evaluate(run: FinishedTrial, chain: Chain, bars: Bars) -> Evaluation:
    samplers: dict[str, SamplerConfig | None] = {DEGRADED: None, **BASELINES, SAMPLED: run.config.sampler}
    evaluations = {name: nfe(sampler, chain.degradation.steps) if sampler else 0 for name, sampler in samplers.items()}
    unsampled = find_unsampled(chain, samplers.values())
    work = [chain.protocol.num_images * count * new for count, new in zip(evaluations.values(), unsampled, strict=True)]
    advance = bars.start(f"sample {run.name[-_NAME_LETTERS:]}", sum(work), "NFE") if sum(work) else lambda _: None
    unjudged = count_unjudged_images(chain, samplers.values())
    chain.extractor = with_bar(chain.extractor, bars, f"judge {run.name[-_NAME_LETTERS:]}", unjudged)
    outcome = chain.run(found_only, lambda *_: None, count_evaluations(work, advance))
    labels = _labels(run.config)
    sets = [JudgedSet(name, labels[name], outcome.judgements[name], evaluations[name]) for name in labels]
    return Evaluation(run.name, _title(run, chain), tuple(sets), run.config)


def _labels(config: TrialConfig) -> dict[str, str]:
    """Return the name for people of each set, in the order of the table."""
    start = "degraded" if config.task == "restored" else "x_T as drawn"
    own = f"sampled ({config.sampler.algorithm})"
    return {DEGRADED: start, "direct": "direct", SAMPLED: own, "naive": "Algorithm 1"}


def _title(run: FinishedTrial, chain: Chain) -> str:
    """Describe a run: its degradation, T, the settings of the sampler that are not the default, and its training."""
    sampler = run.config.sampler.model_dump(exclude_defaults=True, exclude={"algorithm"})
    settings = "".join(f", {name} {value}" for name, value in sampler.items())
    prior = f", from the prior {run.config.prior['kind']}" if run.config.prior else ""
    return (
        f"{run.name}: {chain.degradation.kind}, T = {chain.degradation.steps}{prior}; sampler "
        f"{run.config.sampler.algorithm}{settings}; trained for {run.config.training.steps:,} steps"
    )

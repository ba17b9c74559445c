"""Judging what is finished: the image sets of trials whose restorers are in the store, and pictures from elsewhere."""

from __future__ import annotations

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
from coldtune.metrics.protocol import LEAST_IMAGES
from coldtune.reports.evaluation import JudgedSet, evaluation_record
from coldtune.stages.chain import BASELINES, SAMPLED, Chain, found_only
from coldtune.stages.evaluation_progress import missing, passes, to_judge, watch
from coldtune.stages.keys import DEGRADED
from coldtune.stages.trial import RungConfig, TrialConfig
from coldtune.store.store import Store

Split = Literal["train", "validation", "test"]

COMPARED = ("fid", "kid", "rmse")
NOTICEABLE = 0.01  # of the degraded images' FID: trials that start further apart are not the same task
_WIDEST = 24  # letters of a name beside a bar, so that both fit into 80 columns


@dataclass(frozen=True)
class Run:
    """A finished trial: what it is called, its configuration, and the dataset that it was trained on.

    source: the dataset that its degradation draws from; None for most.
    """

    name: str
    config: TrialConfig
    dataset: Dataset
    source: Dataset | None = None


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Sets of images judged under one protocol.

    title: a line on what they are. sets: `degraded`, `direct`, `sampled` and `naive` (Algorithm 1) of a trial, or
    `images`, pictures from elsewhere. config: the trial's, with the protocol under which it was judged here.
    """

    name: str
    title: str
    sets: tuple[JudgedSet, ...]
    config: TrialConfig | None = None

    def __getitem__(self, name: str) -> Judgement:
        return {item.name: item.judgement for item in self.sets}[name]

    def record(self) -> dict[str, Any]:
        """All that is known of it, fit for JSON."""
        config = plain(self.config) if self.config else None
        return {"name": self.name, **evaluation_record(self.sets), "config": config}


def judged_by(
    config: TrialConfig,
    split: str | None = None,
    num_images: int | Literal["all"] | None = None,
    extractor: str | None = None,
    seed: int | None = None,
) -> TrialConfig:
    """`config` under another protocol: what is None stays the trial's own. ValueError as `ProtocolConfig`."""
    changes: dict[str, Any] = {"split": split, "num_images": num_images, "extractor": extractor, "seed": seed}
    tree = plain(config.protocol) | {name: value for name, value in changes.items() if value is not None}
    if num_images == "all":
        tree["num_images"] = None
    return config.model_copy(update={"protocol": parse(ProtocolConfig, tree, "protocol")})


def evaluate_runs(
    runs: Sequence[Run], store: Store, device: torch.device | str = "cpu", progress: bool = True
) -> list[Evaluation]:
    """Every set of images of each run under its own protocol, found in `store` or sampled and judged now.

    Restorers are only looked for: nothing is trained. All runs are checked before anything is sampled.
    progress: show bars on standard error, where that is a terminal.
    ValueError where a run is there twice, a restorer is missing, the runs' protocols differ (naming the part), one
    cannot be resolved, or an extractor does not take such images.
    """
    if twice := [run.name for i, run in enumerate(runs) if run.name in [other.name for other in runs[:i]]]:
        raise ValueError(f"{twice[0]}: is named twice; a run cannot be compared with itself")
    chains = [_chain(run, store, device) for run in runs]
    for run, chain in zip(runs, chains, strict=True):
        with _about(f"{runs[0].name} and {run.name}"):
            check_same([chains[0].protocol, chain.protocol])
    with show(progress) as bars:
        return [_evaluated(run, chain, bars) for run, chain in zip(runs, chains, strict=True)]


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
    """Pictures from elsewhere, uint8 (N, C, H, W), against a split of a dataset, as generated images are judged.

    cache: keeps the reference's statistics. seed: of FID-infinity's subsets and MIND's directions. progress: show a bar
    on standard error, where that is a terminal. ValueError where the pictures are not uint8 images of the dataset's
    shape, or too few for a metric.
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
    of_reference = (dataset.split(split).images, protocol, cache)
    with _about(name), show(progress) as bars:
        watched = watch(extractor, bars, f"features of {dataset.name}", protocol.reference_images)
        features = reference_features(watched, *of_reference, device=device)
        reference = reference_statistics(watched, *of_reference, features=features)
        watched = watch(extractor, bars, f"judge {name[-_WIDEST:]}", len(images))
        judgement = judge(images, None, watched, reference, protocol, features, tuple(DISTANCES), device=device)
    title = f"{name}: {len(images):,} pictures against {dataset.name}/{split}"
    return Evaluation(name, title, (JudgedSet("images", "images", judgement),))


def comparisons(other: Evaluation, first: Evaluation) -> list[Comparison]:
    """What `other` sampled against what `first` sampled, by FID, KID and (restored images) RMSE, image by image.

    ValueError for unequal protocols, naming what differs.
    """
    a, b = other[SAMPLED], first[SAMPLED]
    metrics = [name for name in COMPARED if name in a.values and name in b.values]
    return [compare(a, b, metric, (other.name, first.name)) for metric in metrics]


def unequal_starts(other: Evaluation, first: Evaluation) -> str:
    """A warning where the two restore images that are not equally degraded; else empty, as for generated images.

    The less a degradation takes away, the better every sampler looks, so the difference is then not the sampler's or
    the restorer's alone. Measured by the FID of the degraded images, which may differ by 1 %.
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
    """A user's error says of which run."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _chain(run: Run, store: Store, device: torch.device | str) -> Chain:
    """The run's chain, without the rungs on its way.

    ValueError where its restorer is not in the store, or the extractor does not take such images.
    """
    config = run.config.model_copy(update={"rungs": RungConfig()})
    with _about(run.name):
        chain = Chain(config, run.dataset, store, device, run.source)
        chain.train(found_only, lambda *_: None)
        chain.extractor(run.dataset.split(config.protocol.split).images[:2].to(device))
    return chain


def _evaluated(run: Run, chain: Chain, bars: Bars) -> Evaluation:
    samplers: dict[str, SamplerConfig | None] = {DEGRADED: None, **BASELINES, SAMPLED: run.config.sampler}
    evaluations = {name: nfe(sampler, chain.degradation.steps) if sampler else 0 for name, sampler in samplers.items()}
    absent = missing(chain, samplers.values())
    work = [chain.protocol.num_images * count * new for count, new in zip(evaluations.values(), absent, strict=True)]
    advance = bars.start(f"sample {run.name[-_WIDEST:]}", sum(work), "NFE") if sum(work) else lambda _: None
    chain.extractor = watch(chain.extractor, bars, f"judge {run.name[-_WIDEST:]}", to_judge(chain, samplers.values()))
    outcome = chain.run(found_only, lambda *_: None, passes(work, advance))
    labels = _labels(run.config)
    sets = [JudgedSet(name, labels[name], outcome.judgements[name], evaluations[name]) for name in labels]
    return Evaluation(run.name, _title(run, chain), tuple(sets), run.config)


def _labels(config: TrialConfig) -> dict[str, str]:
    """What each set is called, in the order of the table."""
    start = "degraded" if config.task == "restored" else "x_T as drawn"
    own = f"sampled ({config.sampler.algorithm})"
    return {DEGRADED: start, "direct": "direct", SAMPLED: own, "naive": "Algorithm 1"}


def _title(run: Run, chain: Chain) -> str:
    """The run and what it is: degradation, T, the sampler's settings that are not the default, and the training."""
    sampler = run.config.sampler.model_dump(exclude_defaults=True, exclude={"algorithm"})
    settings = "".join(f", {name} {value}" for name, value in sampler.items())
    prior = f", from the prior {run.config.prior['kind']}" if run.config.prior else ""
    return (
        f"{run.name}: {chain.degradation.kind}, T = {chain.degradation.steps}{prior}; sampler "
        f"{run.config.sampler.algorithm}{settings}; trained for {run.config.training.steps:,} steps"
    )

"""Measure how the choice of the reference changes values, intervals and rankings on the digits.

    uv run benchmarks/reference.py --home runs/reference --seeds 0 1 2 3 4

Restored images are judged against their own originals (`same`), against the other half of the split (`other`), and
against the training images (`train`). The script trains six blurs of the default sweep's space with each seed, samples
from each restorer by direct restoration, Algorithm 1 and Algorithm 2, and judges every set by each reference. One
thread computes everything. Work that the home holds is found again, so an interrupted run continues.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file
from scipy.stats import kendalltau
from torch import Tensor

from coldtune.data import DataConfig, Dataset, prepare
from coldtune.diffusion.samplers import SamplerConfig
from coldtune.metrics import (
    DISTANCES,
    Extractor,
    Judgement,
    Protocol,
    ProtocolConfig,
    build_extractor,
    compare,
    judge,
    reference_features,
    reference_statistics,
    resolve,
)
from coldtune.metrics.protocol import select_reference
from coldtune.stages.chain import Chain
from coldtune.stages.trial import TrialConfig
from coldtune.store.cache import StoreCache
from coldtune.store.provenance import git_commit
from coldtune.store.store import Store
from coldtune.studies.space.validate import build_space
from coldtune.studies.spec.build import build_spec
from coldtune.training.device import use_threads
from coldtune.training.loop import train

# Blurs that the default sweep asked: its best points and its worst restorer. sigma.start follows from the end.
BLURS = (
    {"schedule": "exponential", "rate": 0.05, "T": 20, "kernel": 7},
    {"schedule": "constant", "T": 30, "kernel": 5},
    {"schedule": "exponential", "rate": 0.02059, "T": 15, "kernel": 11},
    {"schedule": "linear", "rate": 0.006466, "T": 40, "kernel": 9},
    {"schedule": "exponential", "rate": 0.1915, "T": 20, "kernel": 7},
    {"schedule": "linear", "rate": 0.0515, "T": 20, "kernel": 7},
)
REFERENCES = {
    "same": ProtocolConfig(),
    "same, half N": ProtocolConfig(num_images=182),
    "other": ProtocolConfig(reference="other"),
    "train": ProtocolConfig(reference="train"),
}
METRICS = tuple(DISTANCES)
Place = tuple[int, int, str]
"""The seed, the blur's number and the sampler of a set of images."""
SAMPLERS = {name: SamplerConfig(algorithm=name) for name in ("direct", "naive", "tacos")}


def trials(dataset: Dataset, seed: int) -> list[TrialConfig]:
    """Return the six trials of a seed, each with its blur held at the base's end."""
    spec = build_spec("sweep_blur", Path(__file__).parents[1] / "search_spaces" / "blur.yaml", seed=seed)
    space = build_space(spec.space, spec.base, dataset.image_shape)
    return [space.resolve({**blur, "sampler": "tacos"}) for blur in BLURS]


def sampled(dataset: Dataset, store: Store, seed: int) -> Iterator[tuple[int, str, Tensor]]:
    """Yield the blur's number, the sampler and its images, uint8 (N, C, H, W), of every set of a seed."""
    for number, config in enumerate(trials(dataset, seed)):
        chain = Chain(config, dataset, store)
        checkpoint = chain.train(train, lambda *_: None)
        for name, sampler in SAMPLERS.items():
            entry = chain.sample(name, sampler, checkpoint)
            yield number, name, load_file(entry.path / "images.safetensors")["images"]


def judge_all(dataset: Dataset, store: Store, seeds: list[int]) -> dict[str, dict[Place, Judgement]]:
    """Judge every set of every seed by each reference. Return the judgements by reference and set."""
    extractor, cache = build_extractor("digits"), StoreCache(store)
    clean = dataset.split("validation").images
    judged: dict[str, dict[Place, Judgement]] = {name: {} for name in REFERENCES}
    for seed in seeds:
        for number, sampler, images in sampled(dataset, store, seed):
            for name, config in REFERENCES.items():
                protocol = resolve(config, extractor, dataset)
                judged[name][seed, number, sampler] = judge_one(dataset, images, clean, protocol, extractor, cache)
    return judged


def judge_one(
    dataset: Dataset, images: Tensor, clean: Tensor, protocol: Protocol, extractor: Extractor, cache: StoreCache
) -> Judgement:
    """Judge those of all images of the split that the protocol judges."""
    of_reference = (extractor, select_reference(dataset, protocol), protocol, cache)
    features = reference_features(*of_reference)
    moments = reference_statistics(*of_reference, features=features)
    chosen = protocol.image_indices()
    return judge(images[chosen], clean[chosen], extractor, moments, protocol, features, METRICS)


def means_of_settings(judged: dict[Place, Judgement], metric: str) -> list[float]:
    """Return the mean over seeds of each setting, a blur with a sampler."""
    by_setting: dict[tuple[int, str], list[float]] = {}
    for (_, number, sampler), judgement in judged.items():
        by_setting.setdefault((number, sampler), []).append(judgement.values[metric].value)
    return [sum(values) / len(values) for _, values in sorted(by_setting.items())]


def told_apart(judged: dict[Place, Judgement], metric: str) -> float:
    """Return the share of pairs of one seed's sets whose difference has an interval without 0."""
    pairs = [(a, b) for a, b in itertools.combinations(sorted(judged), 2) if a[0] == b[0]]
    return sum(compare(judged[a], judged[b], metric).better is not None for a, b in pairs) / len(pairs)


def print_settings(judged: dict[str, dict[Place, Judgement]]) -> None:
    print("| metric | reference | N | M | smallest | median | largest | half width | sets below 0 | told apart |")
    print("|:--|:--|--:|--:|--:|--:|--:|--:|--:|--:|")
    for metric in METRICS:
        for name, sets in judged.items():
            values = [judgement.values[metric] for judgement in sets.values()]
            numbers = torch.tensor([value.value for value in values])
            widths = torch.tensor([(value.high - value.low) / 2 for value in values])
            protocol = values[0].protocol
            shown = (numbers.min(), numbers.median(), numbers.max(), widths.median())
            print(
                f"| {metric} | {name} | {protocol.num_images} | {protocol.reference_images} | "
                + " | ".join(f"{float(number):.4f}" for number in shown)
                + f" | {float((numbers < 0).double().mean()):.0%} | {told_apart(sets, metric):.0%} |"
            )


def print_rankings(judged: dict[str, dict[Place, Judgement]]) -> None:
    pairs = list(itertools.combinations(REFERENCES, 2))
    print("| metric | sets | " + " | ".join(f"{a}, {b}" for a, b in pairs) + " |")
    print("|:--|:--|" + "--:|" * len(pairs))
    for metric in METRICS:
        by_set = {name: [j.values[metric].value for _, j in sorted(sets.items())] for name, sets in judged.items()}
        by_setting = {name: means_of_settings(sets, metric) for name, sets in judged.items()}
        for label, values in (("settings", by_setting), ("close settings", _close(by_setting)), ("sets", by_set)):
            taus = [float(kendalltau(values[a], values[b]).statistic) for a, b in pairs]
            print(f"| {metric} | {len(values['same'])} {label} | " + " | ".join(f"{tau:.2f}" for tau in taus) + " |")


def _close(by_setting: dict[str, list[float]]) -> dict[str, list[float]]:
    """Return direct restoration and Algorithm 2 only. Algorithm 1 is far worse, so every metric ranks it last."""
    return {name: [value for i, value in enumerate(values) if i % 3 != 1] for name, values in by_setting.items()}


def print_real(dataset: Dataset, store: Store) -> None:
    """Judge real images as if they had been restored: the distance of two samples of one distribution."""
    extractor, cache = build_extractor("digits"), StoreCache(store)
    print("| metric | real images | reference | N | M | value | 95 % CI |")
    print("|:--|:--|:--|--:|--:|--:|:--|")
    rows = [("validation", "other"), ("test", "other"), ("validation", "train"), ("test", "train")]
    for metric in METRICS:
        for split, name in rows:
            protocol = resolve(ProtocolConfig(split=split, reference=name), extractor, dataset)
            clean = dataset.split(split).images
            value = judge_one(dataset, clean, clean, protocol, extractor, cache).values[metric]
            print(
                f"| {metric} | {split} | {name} | {protocol.num_images} | {protocol.reference_images} | "
                f"{value.value:.4f} | [{value.low:.4f}, {value.high:.4f}] |"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    options = parser.parse_args()
    use_threads(1)
    dataset = prepare(DataConfig(), options.home, progress=False)
    store = Store(options.home / "store")
    judged = judge_all(dataset, store, options.seeds)
    print(f"commit {git_commit()}, {len(BLURS)} blurs, {len(SAMPLERS)} samplers, {len(options.seeds)} seeds\n")
    for show in (print_settings, print_rankings):
        show(judged)
        print()
    print_real(dataset, store)


if __name__ == "__main__":
    main()

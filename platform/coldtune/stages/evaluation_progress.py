"""The work that an evaluation still has to do, and progress bars for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from torch import Tensor

from coldtune.data.progress import Bars
from coldtune.diffusion.samplers import SamplerConfig
from coldtune.metrics.extractors import Extractor
from coldtune.stages.chain import Chain


def with_bar(extractor: Extractor, bars: Bars, title: str, total: int) -> Extractor:
    """Return `extractor` with a progress bar over the `total` images that it will see.

    The bar starts with the first images, so that it does not appear if everything is found.
    """
    advance: Callable[[float], None] | None = None

    def extract(images: Tensor) -> Tensor:
        nonlocal advance
        advance = advance or bars.start(title, total, "images")
        features = extractor(images)
        advance(len(images))
        return features

    return Extractor(extractor.name, extract, extractor.dim, extractor.sha256, extractor.input)


def find_unsampled(chain: Chain, samplers: Iterable[SamplerConfig | None]) -> list[bool]:
    """Return for each sampler whether its images still have to be sampled.

    If two samplers make the same images, only the first has to.
    """
    keys = [chain.sample_key(sampler) for sampler in samplers]
    return [key not in keys[:i] and chain.store.find("sample", key) is None for i, key in enumerate(keys)]


def count_unjudged_images(chain: Chain, samplers: Iterable[SamplerConfig | None]) -> int:
    """Count the images that the extractor still has to see: those of unjudged sets, and of the reference."""
    find, protocol = chain.store.find, chain.protocol
    keys = {chain.sample_key(sampler) for sampler in samplers}
    sets = sum(not chain.is_measured(key) for key in keys)
    of_reference = find("reference_features", chain.cache().rename(protocol.reference_key)) is None
    return sets * protocol.num_images + (bool(sets) and of_reference) * protocol.reference_images


def count_evaluations(work: Sequence[int], advance: Callable[[float], None]) -> Callable[[str, float], None]:
    """Convert the progress of a chain, a share of its sets of images, into network evaluations.

    Args:
        work: Evaluations of each set, in the chain's order. 0 for a set that is found, so that skipping it does not
            look like speed.
        advance: Called with the evaluations made since the last call.

    Returns:
        The `progress` argument of `Chain.run`.
    """
    done = 0.0

    def progress(stage: str, share: float) -> None:
        nonlocal done
        whole, part = divmod(share * len(work), 1)
        now = sum(work[: int(whole)]) + (work[int(whole)] * part if whole < len(work) else 0.0)
        advance(now - done)
        done = now

    return progress

"""What an evaluation has still to do, and bars that show how far it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from torch import Tensor

from coldtune.data.progress import Bars
from coldtune.diffusion.samplers import SamplerConfig
from coldtune.metrics.extractors import Extractor
from coldtune.stages.chain import Chain
from coldtune.stages.keys import measure_key, sample_key


def watch(extractor: Extractor, bars: Bars, what: str, total: int) -> Extractor:
    """`extractor`, with a bar `what` over the `total` images that it is to see; it begins with the first of them."""
    advance: Callable[[float], None] | None = None

    def seen(images: Tensor) -> Tensor:
        nonlocal advance
        advance = advance or bars.start(what, total, "images")
        features = extractor(images)
        advance(len(images))
        return features

    return Extractor(extractor.name, seen, extractor.dim, extractor.sha256, extractor.input)


def missing(chain: Chain, samplers: Iterable[SamplerConfig | None]) -> list[bool]:
    """Which sets are still to be sampled; one that a sampler before it makes is not."""
    keys = [sample_key(chain.config, chain.dataset, sampler, chain.source) for sampler in samplers]
    return [key not in keys[:i] and chain.store.find("sample", key) is None for i, key in enumerate(keys)]


def to_judge(chain: Chain, samplers: Iterable[SamplerConfig | None]) -> int:
    """How many images the extractor is still to see: of sets that are not judged yet, and of the reference."""
    find, protocol = chain.store.find, chain.protocol
    keys = {sample_key(chain.config, chain.dataset, sampler, chain.source) for sampler in samplers}
    sets = sum(find("measure", measure_key(key, protocol)) is None for key in keys)
    of_reference = find("reference_features", protocol.reference_key) is None
    return sets * protocol.num_images + (bool(sets) and of_reference) * protocol.reference_images


def passes(work: Sequence[int], advance: Callable[[float], None]) -> Callable[[str, float], None]:
    """A chain's progress, which counts sets of images, as one that counts the evaluations that are still to be made.

    work: of each set, in the chain's order; 0 where it is found, so that it does not look like speed.
    """
    done = 0.0

    def passed(stage: str, share: float) -> None:
        nonlocal done
        whole, part = divmod(share * len(work), 1)
        now = sum(work[: int(whole)]) + (work[int(whole)] * part if whole < len(work) else 0.0)
        advance(now - done)
        done = now

    return passed

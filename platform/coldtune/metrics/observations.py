"""Features and scores of each image of a set, gathered over batches and processes into the order of the images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from coldtune.metrics.extractors import Extractor
from coldtune.metrics.moments import check_features, to_float64
from coldtune.metrics.registry import per_image_scores

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


def image_scores(images: Tensor, clean: Tensor) -> dict[str, Tensor]:
    """Return the per-image scores (`ssim`, `mse`), (B,) each, of uint8 images (B, C, H, W) against their originals.

    Raises:
        ValueError: If `clean` has another shape or dtype, or a score refuses the images.
    """
    if clean.dtype != torch.uint8 or clean.shape != images.shape:
        raise ValueError(
            f"clean = {clean.dtype} {tuple(clean.shape)}: allowed is uint8 {tuple(images.shape)}, an original per image"
        )
    a, b = to_float64(images) / 255, to_float64(clean) / 255
    return {name: score.compute(a, b) for name, score in per_image_scores().items()}


class Observations:
    """Features and per-image scores by the images' numbers, which is everything that a judgement needs.

    They are kept in float64 on the CPU: 8 d bytes for each image, 16 kB at d = 2048. Nothing is summed before all
    images are known and in the order of their numbers. So a judgement does not depend on batches, on their order or on
    the processes' shares, except for the rounding of the network itself.
    """

    def __init__(self, dim: int, pairs: bool) -> None:
        """Create observations of no images.

        Args:
            dim: The length of a feature vector.
            pairs: True if every image has an original, so that it also has per-image scores.
        """
        self.dim, self._names = dim, tuple(per_image_scores()) if pairs else ()
        self._numbers: list[Tensor] = []
        self._rows: list[Tensor] = []

    @property
    def n(self) -> int:
        """The number of known images."""
        return sum(map(len, self._numbers))

    def update(self, numbers: Tensor, features: Tensor, scores: Mapping[str, Tensor] | None = None) -> None:
        """Add images.

        Args:
            numbers: The images' numbers (B,), integers.
            features: Their features (B, dim).
            scores: Their per-image scores by name, (B,) each. Required if the images have originals.

        Raises:
            ValueError: If shapes differ, scores are missing, or features are not finite.
        """
        check_features(features, self.dim)
        given = dict(scores or {})
        shapes = {name: tuple(values.shape) for name, values in {"numbers": numbers, **given}.items()}
        wanted = dict.fromkeys(("numbers", *self._names), (len(features),))
        if shapes != wanted or numbers.is_floating_point():
            raise ValueError(f"{len(features)} images with {shapes}: allowed are integer numbers and {wanted}")
        columns = [to_float64(given[name].detach()).cpu()[:, None] for name in self._names]
        self._numbers.append(numbers.detach().cpu().long())
        self._rows.append(torch.cat([to_float64(features.detach()).cpu(), *columns], 1))

    def observe(self, numbers: Tensor, images: Tensor, clean: Tensor | None, extractor: Extractor) -> None:
        """Add uint8 images (B, C, H, W): extract their features, and score them against `clean` if it is given."""
        if len(images):  # the share of a process may be empty
            self.update(numbers, extractor(images), None if clean is None else image_scores(images, clean))

    def reduce(self, group: ProcessGroup | None = None) -> None:
        """Gather the images of all ranks of `group`, so that every rank knows the same images.

        The ranks' shares may have any size. Without an initialised process group this does nothing.

        Args:
            group: The process group. None is the default group.
        """
        import torch.distributed as dist

        if not (dist.is_available() and dist.is_initialized()):
            return
        # all_gather needs float64 messages of equal length. An image number below 2^53 is exact in float64.
        local = torch.cat([self._all_numbers()[:, None].double(), self._all_rows()], 1)
        device = torch.device("cuda") if dist.get_backend(group) == "nccl" else torch.device("cpu")
        counts = [torch.zeros(1, dtype=torch.int64, device=device) for _ in range(dist.get_world_size(group))]
        dist.all_gather(counts, torch.tensor([len(local)], device=device), group=group)
        message = local.new_zeros(max(int(count) for count in counts), local.shape[1], device=device)
        message[: len(local)] = local
        parts = [torch.empty_like(message) for _ in counts]
        dist.all_gather(parts, message, group=group)
        known = torch.cat([part[: int(count)].cpu() for part, count in zip(parts, counts, strict=True)])
        self._numbers, self._rows = [known[:, 0].long()], [known[:, 1:]]

    def ordered(self, numbers: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the features (N, dim) and the scores (N,) by name, in the order of the images' numbers.

        Args:
            numbers: The numbers (N,) of the judged images, ascending (`Protocol.image_indices`).

        Raises:
            ValueError: If images are missing, known twice, or not among `numbers`. The message counts them.
        """
        known, order = self._all_numbers().sort()
        twice = len(known) - len(known.unique())  # type: ignore[no-untyped-call]
        missing = int((~torch.isin(numbers, known)).sum())
        others = int((~torch.isin(known, numbers)).sum())
        if twice or missing or others:
            raise ValueError(
                f"{missing} of {len(numbers)} images are missing, {twice} known twice, {others} not asked for: every "
                f"image must be observed once, by one process"
            )
        rows = self._all_rows()[order]
        scores = {name: rows[:, self.dim + i].contiguous() for i, name in enumerate(self._names)}
        return rows[:, : self.dim].contiguous(), scores

    def _all_numbers(self) -> Tensor:
        return torch.cat([torch.empty(0, dtype=torch.int64), *self._numbers])

    def _all_rows(self) -> Tensor:
        return torch.cat([torch.empty(0, self.dim + len(self._names), dtype=torch.float64), *self._rows])

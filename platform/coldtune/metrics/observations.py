"""What is known of each image of a set: gathered batch by batch and process by process, in the order of the images."""

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
    """`ssim` and `mse` (B,) of each uint8 image (B, C, H, W) against its original. ValueError for other forms."""
    if clean.dtype != torch.uint8 or clean.shape != images.shape:
        raise ValueError(
            f"clean = {clean.dtype} {tuple(clean.shape)}: allowed is uint8 {tuple(images.shape)}, an original per image"
        )
    a, b = to_float64(images) / 255, to_float64(clean) / 255
    return {name: score.compute(a, b) for name, score in per_image_scores().items()}


class Observations:
    """Features and per-image scores by the images' numbers: all that a judgement needs, whoever computed it.

    Kept in float64 on the CPU: 8 d bytes an image, 16 kB at d = 2048. Nothing is summed before all is there, in the
    order of the numbers, so batches, their order and the processes' shares leave no trace in a judgement beyond the
    rounding of the network itself.
    """

    def __init__(self, dim: int, pairs: bool) -> None:
        """Start empty; dim: of one feature vector; pairs: whether every image has its `ssim` and `mse`, too."""
        self.dim, self._names = dim, tuple(per_image_scores()) if pairs else ()
        self._numbers: list[Tensor] = []
        self._rows: list[Tensor] = []

    @property
    def n(self) -> int:
        """How many images are known."""
        return sum(map(len, self._numbers))

    def update(self, numbers: Tensor, features: Tensor, scores: Mapping[str, Tensor] | None = None) -> None:
        """Add images `numbers` (B,), integers, with features (B, dim) and, of pairs, `scores`: `ssim` and `mse`, (B,).

        ValueError for other shapes, missing scores, and features that are not finite.
        """
        check_features(features, self.dim)
        given = dict(scores or {})
        shapes = {name: tuple(values.shape) for name, values in {"numbers": numbers, **given}.items()}
        wanted = dict.fromkeys(("numbers", *self._names), (len(features),))
        if shapes != wanted or numbers.is_floating_point():
            raise ValueError(f"{len(features)} images with {shapes}: allowed are integer numbers and {wanted}")
        columns = [to_float64(values.detach()).cpu()[:, None] for values in (given[name] for name in self._names)]
        self._numbers.append(numbers.detach().cpu().long())
        self._rows.append(torch.cat([to_float64(features.detach()).cpu(), *columns], 1))

    def observe(self, numbers: Tensor, images: Tensor, clean: Tensor | None, extractor: Extractor) -> None:
        """`update` with what `extractor` sees in uint8 images (B, C, H, W), and their scores against `clean`."""
        if len(images):  # a process may have no share
            self.update(numbers, extractor(images), None if clean is None else image_scores(images, clean))

    def reduce(self, group: ProcessGroup | None = None) -> None:
        """Take in what all ranks of `group` (None: the default one) know: afterwards equal on every rank.

        Does nothing where no process group is initialised. The ranks' shares may be of any size.
        """
        import torch.distributed as dist

        if not (dist.is_available() and dist.is_initialized()):
            return
        # One float64 message of equal length on every rank; a number below 2^53 is exact in it.
        own = torch.cat([self._all_numbers()[:, None].double(), self._all_rows()], 1)
        device = torch.device("cuda") if dist.get_backend(group) == "nccl" else torch.device("cpu")
        counts = [torch.zeros(1, dtype=torch.int64, device=device) for _ in range(dist.get_world_size(group))]
        dist.all_gather(counts, torch.tensor([len(own)], device=device), group=group)
        message = own.new_zeros(max(int(count) for count in counts), own.shape[1], device=device)
        message[: len(own)] = own
        parts = [torch.empty_like(message) for _ in counts]
        dist.all_gather(parts, message, group=group)
        known = torch.cat([part[: int(count)].cpu() for part, count in zip(parts, counts, strict=True)])
        self._numbers, self._rows = [known[:, 0].long()], [known[:, 1:]]

    def ordered(self, numbers: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Features (N, dim) and scores (N,) by name of the images `numbers` (N,), ascending (`image_indices`).

        ValueError, naming how many, where images are missing, known twice, or not among `numbers`.
        """
        known, order = self._all_numbers().sort()
        twice = len(known) - len(known.unique())  # type: ignore[no-untyped-call]
        missing = int((~torch.isin(numbers, known)).sum())
        others = int((~torch.isin(known, numbers)).sum())
        if twice or missing or others:
            raise ValueError(
                f"{missing} of {len(numbers)} images are missing, {twice} known twice, {others} not asked for: every "
                f"image is to be observed once, by one process"
            )
        rows = self._all_rows()[order]
        scores = {name: rows[:, self.dim + i].contiguous() for i, name in enumerate(self._names)}
        return rows[:, : self.dim].contiguous(), scores

    def _all_numbers(self) -> Tensor:
        return torch.cat([torch.empty(0, dtype=torch.int64), *self._numbers])

    def _all_rows(self) -> Tensor:
        return torch.cat([torch.empty(0, self.dim + len(self._names), dtype=torch.float64), *self._rows])

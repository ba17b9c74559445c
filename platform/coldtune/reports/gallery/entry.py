"""An entry of the gallery: a degradation on real images as t grows, and the way back of each sampler."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import yaml
from PIL import Image
from torch import Tensor

from coldtune import presets
from coldtune.data import to_uint8
from coldtune.diffusion import build_degradation, sample
from coldtune.diffusion.degradations import Animorph, AnimorphDraw, Degradation, Draw
from coldtune.reports.gallery.sheet import Row, sheet

_COLUMNS = 9


@dataclass(frozen=True)
class Source:
    """Images to show.

    Attributes:
        name: The name of the source in titles and file names.
        images: The images (N, C, H, W) in [-1, 1].
        others: Images of the same shape, into which animorphosis turns `images`.
    """

    name: str
    images: Tensor
    others: Tensor

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width


class GalleryEntry:
    """The degradation of a preset, shown on the images of a source."""

    def __init__(self, source: Source, preset: str, index: int) -> None:
        """Build the degradation.

        Args:
            source: The images.
            preset: The name of the preset.
            index: The image of the source that the samplers restore and that the overview shows.
        """
        self.source, self.preset, self.index = source, preset, index
        self.settings: Mapping[str, Any] = presets.load(preset)["degradation"]
        others = source.others if self.settings["kind"] == "animorph" else None
        self.d = build_degradation(self.settings, source.shape, others)
        self.draw = self._draw()

    @property
    def slug(self) -> str:
        """The start of the names of the entry's files."""
        return f"{self.source.name}-{self.preset.replace('/', '-')}"

    @property
    def title(self) -> str:
        """The kind of the degradation, and the preset."""
        return f"{self.d.kind}: {self.preset}"

    @property
    def caption(self) -> str:
        """The configuration of the degradation as a line of YAML."""
        flow: str = yaml.safe_dump(self.settings, default_flow_style=True, sort_keys=False, width=10_000)
        return flow.strip()

    def forward(self) -> Image.Image:
        """Draw every image at severities of about equal change, a row for each image."""
        severities = self.severities()
        frames = [to_uint8(self.d(self.source.images, t, self.draw)) for t in severities]
        rows = [Row([frame[i] for frame in frames], "D(x, t)") for i in range(len(self.source.images))]
        return sheet(rows, [f"t = {t}" for t in severities])

    def overview(self) -> Row:
        """Return a row with the chosen image at severities of about equal change."""
        severities = self.severities()
        x, draw = self._chosen()
        images: list[Tensor | None] = [to_uint8(self.d(x, t, draw))[0] for t in severities]
        empty = _COLUMNS - len(severities)
        captions = [f"t = {t}" for t in severities] + [""] * empty
        return Row(images + [None] * empty, self.preset.replace("/", "/\n"), captions)

    def backward(self) -> Image.Image:
        """Draw the iterates of every sampler, a row for each, and print the largest error of x_0 beside them."""
        columns = self.severities()[::-1]
        rows = []
        for name, sampler in samplers(self.d, len(columns) - 1):
            iterates = self.iterates(sampler)
            error = float((iterates[0] - self._chosen()[0]).abs().max())
            # A sampler with a stride visits other severities than the columns, so its row has captions of its own.
            shown = sorted(iterates, reverse=True) if "num_steps" in sampler else columns
            images = [to_uint8(iterates[s])[0] if s in iterates else None for s in shown]
            captions = [f"s = {s}" for s in shown] if shown is not columns else []
            rows.append(Row(images, f"{name}\nerror of x_0: {error:.2g}", captions))
        return sheet(rows, [f"s = {s}" for s in columns])

    def iterates(self, sampler: Mapping[str, Any]) -> dict[int, Tensor]:
        """Return x_s for each s that the sampler visits, from x_T to x_0, with the exact restorer R(x_s, s) = x_0."""
        x, draw = self._chosen()
        x_T = self.d(x, self.d.steps, draw)
        iterates = {self.d.steps: x_T}
        restorer: Callable[[Tensor, Tensor], Tensor] = lambda x_s, s: x  # noqa: E731
        seeds = torch.tensor([self.index])
        keep = lambda step: iterates.update({step["s_next"]: step["x_next"]})  # noqa: E731
        sample(restorer, self.d, x_T, sampler, draw, keep, seeds)
        return iterates

    def _chosen(self) -> tuple[Tensor, Draw | None]:
        """Return the image that the samplers restore, as a batch of size 1, and its draw."""
        chosen = slice(self.index, self.index + 1)
        return self.source.images[chosen], None if self.draw is None else self.draw[chosen]

    def _draw(self) -> Draw | None:
        if isinstance(self.d, Animorph):
            return AnimorphDraw(self.source.others)  # image i turns into image i of `others`, not into a random image
        return self.d.draw(torch.arange(len(self.source.images)))

    def severities(self) -> list[int]:
        """Return the severities of the columns, ascending from 0 to T, at most as many as there are columns.

        The position of a severity is the sum of t / T and of the images' change up to t, as a share of the largest
        change. The columns are evenly spaced in that position.
        """
        x, steps = self.source.images, self.d.steps
        change = torch.stack([(self.d(x, t, self.draw) - x).square().mean().sqrt() for t in range(steps + 1)])
        position = change / change.max() + torch.arange(steps + 1) / steps
        reached = position.cummax(dim=0).values
        wanted = torch.linspace(0, 1, _COLUMNS) * reached[-1]
        return sorted({*torch.searchsorted(reached, wanted[:-1]).tolist(), steps})


def samplers(d: Degradation, strided: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """List the samplers that suit a degradation.

    Args:
        d: The degradation.
        strided: The number of evaluations of the sampler that skips severities. It is left out if T is not larger.

    Yields:
        The label of each sampler, and its configuration.
    """
    tacos = {"algorithm": "tacos"}
    yield "direct", {"algorithm": "direct"}
    yield "Algorithm 1", {"algorithm": "naive"}
    yield "Algorithm 2", tacos
    if strided < d.steps:
        yield f"Algorithm 2, {strided} evaluations", {**tacos, "num_steps": strided}
    if d.estimable:
        yield "estimated draw" + (" (DDIM)" if d.gaussian else ""), {**tacos, "draw": "estimated"}
    if d.gaussian:
        yield "estimated, eta = 1 (DDPM)", {**tacos, "draw": "estimated", "eta": 1.0}
    if d.random:
        yield "Algorithm 1, resampled", {"algorithm": "naive", "draw": "resampled"}
        yield "Algorithm 2, resampled", {**tacos, "draw": "resampled"}
    if d.kind in ("desaturate", "snow"):
        yield "authors' loop, off by one", {**tacos, "off_by_one": True}

"""One exhibit of the gallery: a degradation on real images as t grows, and how each sampler comes back."""

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
    """Images (N, C, H, W) in [-1, 1] to show, and `others` of their shape, into which animorphosis turns them."""

    name: str
    images: Tensor
    others: Tensor

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width


class Exhibit:
    """One setting, shown on one source's images."""

    def __init__(self, source: Source, preset: str, which: int) -> None:
        """`which` of the source's images goes backwards, and into the overview."""
        self.source, self.preset, self.which = source, preset, which
        self.settings: Mapping[str, Any] = presets.load(preset)["degradation"]
        others = source.others if self.settings["kind"] == "animorph" else None
        self.d = build_degradation(self.settings, source.shape, others)
        self.draw = self._draw()

    @property
    def slug(self) -> str:
        """For the names of files."""
        return f"{self.source.name}-{self.preset.replace('/', '-')}"

    @property
    def title(self) -> str:
        """The degradation's kind, and the preset."""
        return f"{self.d.kind}: {self.preset}"

    @property
    def caption(self) -> str:
        """The degradation's configuration as one line of YAML."""
        flow: str = yaml.safe_dump(self.settings, default_flow_style=True, sort_keys=False, width=10_000)
        return flow.strip()

    def forward(self) -> Image.Image:
        """Each image at severities of about equal change."""
        severities = self.severities()
        frames = [to_uint8(self.d(self.source.images, t, self.draw)) for t in severities]
        rows = [Row([frame[i] for frame in frames], "D(x, t)") for i in range(len(self.source.images))]
        return sheet(rows, [f"t = {t}" for t in severities])

    def overview(self) -> Row:
        """One image at severities of about equal change."""
        severities = self.severities()
        x, draw = self._one()
        images: list[Tensor | None] = [to_uint8(self.d(x, t, draw))[0] for t in severities]
        empty = _COLUMNS - len(severities)
        captions = [f"t = {t}" for t in severities] + [""] * empty
        return Row(images + [None] * empty, self.preset.replace("/", "/\n"), captions)

    def backward(self) -> Image.Image:
        """The iterates of every sampler, a row each, and how far x_0 is from the image at the end."""
        columns = self.severities()[::-1]
        rows = []
        for name, sampler in samplers(self.d, len(columns) - 1):
            trail = self.trail(sampler)
            error = float((trail[0] - self._one()[0]).abs().max())
            own = sorted(trail, reverse=True) if "num_steps" in sampler else columns
            images = [to_uint8(trail[s])[0] if s in trail else None for s in own]
            captions = [f"s = {s}" for s in own] if own is not columns else []
            rows.append(Row(images, f"{name}\nerror of x_0: {error:.2g}", captions))
        return sheet(rows, [f"s = {s}" for s in columns])

    def trail(self, sampler: Mapping[str, Any]) -> dict[int, Tensor]:
        """x_s by s, from x_T to x_0."""
        x, draw = self._one()
        x_T = self.d(x, self.d.steps, draw)
        trail = {self.d.steps: x_T}
        restorer: Callable[[Tensor, Tensor], Tensor] = lambda x_s, s: x  # noqa: E731
        seeds = torch.tensor([self.which])
        sample(restorer, self.d, x_T, sampler, draw, lambda step: trail.update({step["s_next"]: step["x_next"]}), seeds)
        return trail

    def _one(self) -> tuple[Tensor, Draw | None]:
        here = slice(self.which, self.which + 1)
        return self.source.images[here], None if self.draw is None else self.draw[here]

    def _draw(self) -> Draw | None:
        if isinstance(self.d, Animorph):
            return AnimorphDraw(self.source.others)  # each into its own, rather than into any
        return self.d.draw(torch.arange(len(self.source.images)))

    def severities(self) -> list[int]:
        """0, .., T, at most as many as there are columns: half evenly spaced, half by how much the images change."""
        x, steps = self.source.images, self.d.steps
        change = torch.stack([(self.d(x, t, self.draw) - x).square().mean().sqrt() for t in range(steps + 1)])
        way = change / change.max() + torch.arange(steps + 1) / steps
        reached = way.cummax(dim=0).values
        wanted = torch.linspace(0, 1, _COLUMNS) * reached[-1]
        return sorted({*torch.searchsorted(reached, wanted[:-1]).tolist(), steps})


def samplers(d: Degradation, strided: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """The samplers that suit `d`, by what to call them; `strided` is the number of evaluations of one with a stride."""
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

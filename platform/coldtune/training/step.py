"""A training step with static shapes, which can be compiled and captured as a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from coldtune.memory import attempt, out_of_memory
from coldtune.training.batches import Batch, StaticOrder, TrainingBatches
from coldtune.training.config import TrainingConfig
from coldtune.training.state import TrainingState
from coldtune.training.way import CompileError, Way

# Steps before a capture. In them the kernels are compiled, libraries choose their algorithms, and tables are made.
_WARM_UP = 3
# The compiled code of this many different shapes is kept in a process. A study of small networks rarely has more.
_SHAPES = 64


def errors(network: nn.Module, batch: Batch, loss: Literal["l1", "l2"], dtype: str) -> Tensor:
    """Return |R(D(x, t), t) - x| or its square, float32 (B, C, H, W). With dtype "bfloat16", R runs under autocast."""
    with torch.autocast(batch.x_t.device.type, torch.bfloat16, enabled=dtype == "bfloat16"):
        restored: Tensor = network(batch.x_t, batch.t)
    difference = restored.float() - batch.x0
    return difference.abs() if loss == "l1" else difference.square()


def _mean_error(
    network: nn.Module, x0: Tensor, x_t: Tensor, t: Tensor, loss: Literal["l1", "l2"], dtype: str
) -> Tensor:
    return errors(network, Batch(x0, x_t, t), loss, dtype).mean()


class StaticStep:
    """The optimiser steps of one process, computed by the same operations on the same memory each time.

    Only integers that Python knows beforehand change from step to step, and they are on the device: the position in the
    stream of samples, and the permutations. So a step can be captured as a CUDA graph, and replaying it costs Python a
    single call. The batch of the next step is made beside the passes of this step, on a stream of its own.

    The samples, the parts and their weights are those of the eager loop.
    """

    def __init__(
        self, state: TrainingState, batches: TrainingBatches, config: TrainingConfig, micro: int, way: Way
    ) -> None:
        """Prepare the step after `state.step`.

        Args:
            state: The network and its optimizer. The optimizer must be capturable if `way.captured`.
            batches: The stream of samples.
            config: The optimisation.
            micro: Images at a time.
            way: How to compute.
        """
        dropping = [layer for layer in state.network.modules() if isinstance(layer, nn.Dropout) and layer.p > 0]
        assert not dropping, "a replayed step could not draw its units from the position alone"
        self.state, self.batches, self.config, self.way, self.device = state, batches, config, way, batches.device
        self.images = config.batch_size * config.accumulate
        self.parts = _parts(config, micro)
        self.mean_error = _compiled(_mean_error) if way.compiled else _mean_error
        self.order = StaticOrder(batches, 2 * self.images) if batches.resident else None
        self.position = torch.full((), state.step * self.images, dtype=torch.int64, device=self.device)
        self.result = torch.zeros(2, device=self.device)
        self.warm, self.graph = 0, None if not way.captured else torch.cuda.CUDAGraph()
        self.captured = False
        self.stream = _stream(self.device, "capture") if way.captured else None
        self.side = _stream(self.device, "beside") if way.captured else None
        self.buffers: list[Batch] = []
        self._load()
        self.buffers = [self._make(first, count) for first, count in self.parts] if self._ahead else []

    @property
    def _ahead(self) -> bool:
        """True if the batch of a step lies ready when the step begins. Otherwise each part is made when it is due."""
        return self.order is None or len(self.parts) == 1

    def run(self) -> Tensor | None:
        """Take the next step, without the update of the average.

        Returns:
            The loss and the gradient norm before clipping, (2,). None if memory ran out. In that case nothing has
            changed.

        Raises:
            CompileError: If the step cannot be compiled or captured.
        """
        self._load()
        if self.captured:
            assert self.graph is not None
            self.graph.replay()
        elif self.warm < _WARM_UP or not self.way.captured:
            if not self._guarded(self._run_once):
                return None
            self.warm += 1
        else:
            if not self._guarded(self._capture):
                return None
            self.captured = True
            assert self.graph is not None
            self.graph.replay()
        return self.result.clone()

    def _guarded(self, work: Callable[[], bool]) -> bool:
        try:
            done = attempt(work)
        except Exception as error:
            if self.way.compiled or self.way.captured:
                raise CompileError(f"{type(error).__name__}: {_first_line(error)}") from error
            raise
        return done is not None and done[0]

    def _run_once(self) -> bool:
        """Take a step without a graph, on the stream that is captured later."""
        if self.stream is None:
            self._gradients()
            self._apply()
            return True
        self.stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self.stream):
            self._gradients()
            self._apply()
        torch.cuda.current_stream(self.device).wait_stream(self.stream)
        return True

    def _capture(self) -> bool:
        assert self.graph is not None
        # Other threads of the process may use the device meanwhile.
        with torch.cuda.graph(self.graph, stream=self.stream, capture_error_mode="thread_local"):
            self._gradients()
            self._apply()
        return True

    def _gradients(self) -> None:
        """Compute the gradients of the step, and make the batch of the next one."""
        self.state.optimizer.zero_grad(set_to_none=True)
        made_beside = self._ahead and self.order is not None
        if made_beside:
            self._on_side_stream(self._make_next)
        loss = torch.zeros((), device=self.device)
        for number, (first, count) in enumerate(self.parts):
            batch = self.buffers[number] if self._ahead else self._make(first, count)
            part = self.mean_error(self.state.network, *batch, self.config.loss, self.config.dtype)
            part = part * (count / self.images)
            torch.autograd.backward(part)
            loss += part.detach()
        self.loss = loss
        if made_beside and self.side is not None:
            torch.cuda.current_stream(self.device).wait_stream(self.side)

    def _on_side_stream(self, work: Callable[[], None]) -> None:
        if self.side is None:
            work()
            return
        self.side.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self.side):
            work()

    def _make_next(self) -> None:
        (first, count), *_ = self.parts
        self.upcoming = self._make(self.images + first, count)

    def _apply(self) -> None:
        """Update the weights, and go on to the next position."""
        gradients = [parameter.grad for parameter in self.state.parameters if parameter.grad is not None]
        norm = get_total_norm(gradients)
        if self.config.clip_norm is not None:
            clip_grads_with_norm_(self.state.parameters, self.config.clip_norm, norm)
        self.state.optimizer.step()
        self.result.copy_(torch.stack((self.loss, norm)))
        self.position += self.images
        if self._ahead and self.order is not None:
            for old, new in zip(self.buffers[0], self.upcoming, strict=True):
                old.copy_(new)

    def _make(self, first: int, count: int) -> Batch:
        """Make the samples from `first` on, counted from this step's first sample."""
        if self.order is None:
            start = self.state.step * self.images + first
            batch = self.batches.at(start, start + count)
        else:
            positions = self.position + torch.arange(first, first + count, device=self.device)
            batch = self.batches.of(self.batches.images[self.order.indices(positions)], positions)
        return batch._replace(x_t=batch.x_t.contiguous(memory_format=self.way.memory_format))

    def _load(self) -> None:
        """Bring to the device what this step needs from the host."""
        start = self.state.step * self.images
        if self.order is not None:
            self.order.load(start, start + 2 * self.images)
            return
        for number, old in enumerate(self.buffers):
            new = self._make(*self.parts[number])
            for target, value in zip(old, new, strict=True):
                target.copy_(value)


class StaticRestorer:
    """A restorer R(x, t) for sampling, computed in the same way as the training's steps.

    The first batch fixes the size. Smaller batches are filled up, because every other size would be compiled anew.
    """

    def __init__(self, network: nn.Module, way: Way, dtype: str) -> None:
        """Wrap a network in eval mode, whose weights have no gradients."""
        self.network, self.way, self.dtype = network.to(memory_format=way.memory_format), way, dtype
        self.evaluate = _compiled(_estimate) if way.compiled else _estimate
        self.graph: torch.cuda.CUDAGraph | None = None
        self.x = self.t = self.out = torch.empty(0)

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """Return the estimate of x_0, a new tensor of the shape and dtype of x."""
        count = len(x)
        if count > len(self.x):
            self._prepare(x, t)
        self.x[:count].copy_(x)
        self.t[:count].copy_(t)
        if self.graph is not None:
            self.graph.replay()
            out = self.out
        else:
            out = self.evaluate(self.network, self.x, self.t, self.dtype)
        return out[:count].to(x.dtype, copy=True, memory_format=torch.contiguous_format)

    @torch.no_grad()
    def _prepare(self, x: Tensor, t: Tensor) -> None:
        self.graph = None
        fixed, times = x.clone(memory_format=self.way.memory_format), t.clone()
        try:
            if self.way.captured:
                graph, stream = torch.cuda.CUDAGraph(), _stream(x.device, "capture")
                stream.wait_stream(torch.cuda.current_stream(x.device))
                with torch.cuda.stream(stream):
                    for _ in range(_WARM_UP):
                        self.evaluate(self.network, fixed, times, self.dtype)
                torch.cuda.current_stream(x.device).wait_stream(stream)
                with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                    self.out = self.evaluate(self.network, fixed, times, self.dtype)
                self.graph = graph
            elif self.way.compiled:
                self.evaluate(self.network, fixed, times, self.dtype)
        except Exception as error:
            if out_of_memory(error):
                raise
            raise CompileError(f"{type(error).__name__}: {_first_line(error)}") from error
        self.x, self.t = fixed, times


def _estimate(network: nn.Module, x: Tensor, t: Tensor, dtype: str) -> Tensor:
    with torch.autocast(x.device.type, torch.bfloat16, enabled=dtype == "bfloat16"):
        estimate: Tensor = network(x, t)
    return estimate.float()


_COMPILED: dict[Callable[..., Any], Callable[..., Any]] = {}


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `function`, compiled for the static shapes of its arguments, once for each combination of them.

    Without `fullgraph`, torch would run parts that it cannot compile eagerly, and say nothing.
    """
    if function not in _COMPILED:
        torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _SHAPES)
        _COMPILED[function] = torch.compile(function, fullgraph=True, dynamic=False)
    return _COMPILED[function]


def _parts(config: TrainingConfig, micro: int) -> list[tuple[int, int]]:
    """Return the parts of a step, as the eager loop of a single process has them: the first sample and the count."""
    pieces = -(-config.batch_size // micro)
    bounds = [config.batch_size * piece // pieces for piece in range(pieces + 1)]
    return [
        (number * config.batch_size + start, stop - start)
        for number in range(config.accumulate)
        for start, stop in pairwise(bounds)
    ]


_STREAMS: dict[tuple[torch.device, str], torch.cuda.Stream] = {}


def _stream(device: torch.device, use: Literal["capture", "beside"]) -> torch.cuda.Stream:
    """Return this process's stream for a use.

    All trainings and restorers of a process share it, because cuBLAS keeps a workspace of its own for each stream that
    it ever worked on (65 MiB on an H200, until the process ends).
    """
    if (device, use) not in _STREAMS:
        _STREAMS[device, use] = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    return _STREAMS[device, use]


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [""])[0]

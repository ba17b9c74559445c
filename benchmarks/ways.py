"""Ways to train and sample for benchmarks/training.py and benchmarks/sampling.py, and the functions that both share.

To compare another way, add a line to `WAYS`. A way whose configuration key does not exist yet is skipped with a reason.
"""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "platform"))  # for machines on which coldtune itself is not installed

import torch  # noqa: E402
from degradations import Iterated  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from coldtune import presets  # noqa: E402
from coldtune.data import Dataset, arrow, manifest  # noqa: E402
from coldtune.data.regular_files import hash_file  # noqa: E402
from coldtune.diffusion import build_restorer  # noqa: E402
from coldtune.diffusion.restorer import SIZES  # noqa: E402
from coldtune.store.provenance import git_commit  # noqa: E402
from coldtune.training import TrainingConfig  # noqa: E402

# The blur of each image size: that of the default sweep, of CIFAR-10 (T = 50) and of CelebA generation (T = 300).
BLURS = {16: "digits-quick", 32: "paper/cifar10-blur", 128: "paper/celeba-blur-generation"}
# Images of a training batch. 64 is the default, with which small trials train.
BATCHES = {"micro": 64, "tiny": 64, "small": 128, "base": 128, "large": 32}
IMAGES = {16: 4096, 32: 4096, 128: 512}


@dataclass(frozen=True)
class Way:
    """A way to compute.

    Attributes:
        name: The label of its row.
        dtype: The arithmetic, whose measured rate the row is compared with.
        plain: True for a loop as published code writes it, False for coldtune's own `train` and sampling.
        iterated: The plain loop computes D(x, t) by t convolutions, not in closed form.
        convolutions: TF32 in convolutions only. This is torch's default.
        training: Settings of `training:` besides the size of the batch.
        parts: The parts of `training.compile: auto` that are on. None leaves the choice to coldtune.
    """

    name: str
    dtype: str = "float32"
    plain: bool = False
    iterated: bool = False
    convolutions: bool = False
    training: dict[str, Any] = field(default_factory=dict)
    parts: tuple[str, ...] | None = None

    def unavailable(self, device: torch.device) -> str | None:
        """Return why this way cannot run here, or None."""
        unknown = self.training.keys() - TrainingConfig.model_fields.keys()
        if unknown:
            return f"this version has no key training.{', training.'.join(sorted(unknown))}"
        if self.parts is not None and device.type != "cuda":
            return "no CUDA: these parts are for GPUs"
        if (self.dtype == "tf32" or self.convolutions) and device.type != "cuda":
            return "no CUDA: TF32 exists on NVIDIA's cards only"
        return None

    def for_task(self) -> dict[str, Any]:
        """Return the keywords of a `TrainingTask` that fix its parts."""
        if self.parts is None:
            return {}
        from coldtune.training import way

        return {"way": way.Way(**dict.fromkeys(self.parts, True))}


PLAIN = "plain loop, iterated blur"
BF16 = {"dtype": "bfloat16"}
NO_GRAPH = ("static", "compiled", "channels_last")
NO_COMPILER = ("static", "captured", "channels_last")
WAYS = (
    Way(PLAIN, plain=True, iterated=True),
    Way("plain loop, iterated blur, TF32 convolutions", plain=True, iterated=True, convolutions=True),
    Way("plain loop, closed-form blur", plain=True),
    Way("ours, float32", training={"dtype": "float32"}),
    Way("ours, tf32", "tf32", training={"dtype": "tf32"}),
    Way("ours, bfloat16", "bfloat16", training=BF16),
    Way("ours, tf32, compiled", "tf32", training={"dtype": "tf32", "compile": "auto"}),
    Way("ours, bfloat16, compiled", "bfloat16", training={**BF16, "compile": "auto"}),
    Way("ours, bfloat16, graph only", "bfloat16", training={**BF16, "compile": "auto"}, parts=NO_COMPILER),
    Way("ours, bfloat16, no graph", "bfloat16", training={**BF16, "compile": "auto"}, parts=NO_GRAPH),
)


def chosen(names: Sequence[str] | None) -> list[Way]:
    """Return the ways of these names. A text that is no way's name stands for all ways whose names contain it."""
    whole = {way.name for way in WAYS}
    found = [
        way
        for way in WAYS
        if names is None or any(name == way.name or (name not in whole and name in way.name) for name in names)
    ]
    if not found:
        sys.exit(f"--ways {' '.join(names or [])}: allowed are parts of {', '.join(repr(way.name) for way in WAYS)}")
    return found


@dataclass(frozen=True)
class Case:
    """A network, an image size and a batch."""

    size: str
    pixels: int
    batch: int

    @classmethod
    def parse(cls, text: str) -> Case:
        """Return the case of a text such as `base-32` or `micro-16-b512`."""
        size, _, rest = text.partition("-")
        pixels, _, batch = rest.partition("-b")
        numbers_ok = pixels.isdigit() and (batch.isdigit() if "-b" in rest else True)
        if size not in SIZES or not numbers_ok or int(pixels) not in BLURS:
            sizes, sides = ", ".join(SIZES), ", ".join(map(str, BLURS))
            sys.exit(f"--cases {text}: must be SIZE-PIXELS or SIZE-PIXELS-bBATCH, of {sizes} and {sides}")
        return cls(size, int(pixels), int(batch) if batch else BATCHES[size])

    def __str__(self) -> str:
        return f"{self.size}-{self.pixels}" + ("" if self.batch == BATCHES[self.size] else f"-b{self.batch}")

    @property
    def shape(self) -> tuple[int, int, int]:
        return (1 if self.pixels == 16 else 3, self.pixels, self.pixels)

    @property
    def blur(self) -> dict[str, Any]:
        return dict(presets.load(BLURS[self.pixels])["degradation"])

    @property
    def steps(self) -> int:
        return int(self.blur["steps"])

    def describe(self) -> str:
        return (
            f"`{self.size}` ({parameters(self) / 1e6:.2f} M weights), {'x'.join(map(str, self.shape))}, "
            f"T = {self.steps}, batch {self.batch}"
        )


@cache
def parameters(case: Case) -> int:
    with torch.device("meta"):
        network = build_restorer({"size": case.size}, case.shape, case.steps)
    return sum(parameter.numel() for parameter in network.parameters())


def random_dataset(folder: Path, case: Case, images: int | None = None) -> Dataset:
    """Return a prepared dataset of random uint8 images of a case's shape, the same at every call."""
    count = images or IMAGES[case.pixels]
    path = folder / f"random-{case.pixels}-{count}"
    if not (path / manifest.FILE).exists():
        path.mkdir(parents=True, exist_ok=True)
        generator = torch.Generator().manual_seed(case.pixels)
        records = {}
        for split in ("train", "validation", "test"):
            pixels = torch.randint(0, 256, (count, *case.shape), dtype=torch.uint8, generator=generator)
            labels, file = torch.zeros(count, dtype=torch.int64), path / manifest.split_file(split)
            tag = manifest.content_hash(pixels)
            arrow.write(file, pixels.numpy(), labels.numpy(), tag)
            records[split] = manifest.SplitRecord(
                images=count,
                bytes=file.stat().st_size,
                pixels=tag,
                labels=manifest.content_hash(labels),
                sha256=hash_file(file),
            )
        manifest.Manifest(
            name="folder",
            image_size=case.pixels,
            resize="bilinear",
            source="random",
            image_shape=case.shape,
            num_classes=1,
            fingerprint=manifest.fingerprint(case.shape, {name: record.pixels for name, record in records.items()}),
            splits=records,
        ).save(path)
    return Dataset.open(path)


def iterated_blur(case: Case, device: torch.device) -> Iterated:
    blur = Iterated(case.blur, case.shape[0])
    blur.kernels = blur.kernels.to(device)
    return blur


@contextmanager
def precision(way: Way, device: torch.device) -> Iterator[None]:
    """Set the arithmetic of a plain loop."""
    if device.type != "cuda":
        yield
        return
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = way.dtype == "tf32", way.convolutions
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(call: Callable[[], object], device: torch.device) -> float:
    """Return the seconds of a call, with the device's work that it started."""
    synchronize(device)
    started = time.perf_counter()
    call()
    synchronize(device)
    return time.perf_counter() - started


@contextmanager
def peak_memory(device: torch.device, into: dict[str, Any]) -> Iterator[None]:
    """Keep the largest `peak_bytes` that a block allocated on the GPU, above the allocations before it."""
    if device.type != "cuda":
        yield
        return
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    yield
    into["peak_bytes"] = max(into.get("peak_bytes", 0), torch.cuda.max_memory_allocated(device) - before)


@contextmanager
def noting(into: dict[str, Any]) -> Iterator[None]:
    """Keep each different warning of a block as a note."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        try:
            yield
        finally:
            notes = into.setdefault("notes", [])
            for warning in caught:
                text = str(warning.message).strip().partition("\n")[0][:300]
                if issubclass(warning.category, UserWarning) and text not in notes:
                    notes.append(text)


def notes(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a line for each different note, with the ways that have it."""
    found: dict[str, list[str]] = {}
    for row in rows:
        for note in row.get("notes", []):
            found.setdefault(note, []).append(row["way"])
    return [*([""] if found else []), *(f"- {'; '.join(names)}: {note}" for note, names in found.items())]


def first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0][:300]}"


def flops(case: Case, device: torch.device, backward: bool) -> float:
    """Return the counted floating-point operations for an image: forward, and backward if asked for."""
    network = build_restorer({"size": case.size}, case.shape, case.steps).to(device)
    x, t = torch.randn(2, *case.shape, device=device), torch.ones(2, dtype=torch.int64, device=device)
    with FlopCounterMode(display=False) as counter, torch.set_grad_enabled(backward):
        out = network(x, t)
        if backward:
            out.abs().mean().backward()
    return counter.get_total_flops() / 2


@cache
def matmul_rate(dtype: str, device: torch.device) -> float | None:
    """Return the measured FLOP/s of a large product of random matrices. None if the device has no such arithmetic."""
    if device.type != "cuda" and dtype == "tf32":
        return None
    side, calls = (8192, 6) if device.type == "cuda" else (768, 2)
    kind = torch.bfloat16 if dtype == "bfloat16" else torch.float32
    a, b = (torch.randn(side, side, device=device, dtype=kind) for _ in range(2))
    with precision(Way("", dtype), device):

        def several() -> None:
            for _ in range(calls):
                a @ b

        several()
        seconds = statistics.median(timed(several, device) for _ in range(3))
    return 2 * side**3 * calls / seconds


def warm_up(device: torch.device) -> None:
    """Create the device's context and load its libraries, so that no row's first step pays for them."""
    x = torch.randn(4, 8, 16, 16, device=device, requires_grad=True)
    torch.nn.functional.conv2d(x, torch.randn(8, 8, 3, 3, device=device)).sum().backward()
    build_restorer({"size": "micro"}, (1, 16, 16), 1)
    synchronize(device)


def rate_text(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def bytes_text(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value / 2**30:.2f} GiB" if value >= 2**30 else f"{value / 2**20:.0f} MiB"


def driver() -> str:
    if shutil.which("nvidia-smi"):
        ask = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        asked = subprocess.run(ask, capture_output=True, text=True, check=False)
        if asked.returncode == 0 and asked.stdout.strip():
            return asked.stdout.splitlines()[0].strip()
    return "unknown"


def machine(device: torch.device) -> str:
    """Return the processor, the card with its driver, and the software, in a line."""
    cpu, info = platform.machine(), Path("/proc/cpuinfo")
    if info.exists():
        names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
        cpu = names[0] if names else cpu
    card = "none"
    if device.type == "cuda":
        about = torch.cuda.get_device_properties(device)
        card = f"{about.name} ({bytes_text(about.total_memory)}), driver {driver()}, CUDA {torch.version.cuda}"
    return f"{os.cpu_count()} x {cpu}; GPU: {card}; Python {platform.python_version()}, torch {torch.__version__}"


def command(script: str, arguments: Sequence[str]) -> str:
    return shlex.join(["uv", "run", f"benchmarks/{script}", *arguments])


def commit() -> str:
    return os.environ.get("COLDTUNE_BENCHMARK_COMMIT") or git_commit() or "unknown"


def heading(title: str, script: str, device: torch.device) -> str:
    return (
        f"# {title}, {date.today().isoformat()}\n\n- Command: `{command(script, sys.argv[1:])}`\n"
        f"- Commit: {commit()}\n- Machine: {machine(device)}"
    )


def pick_device(name: str | None) -> torch.device:
    device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
    return torch.device("cuda", torch.cuda.current_device()) if device == torch.device("cuda") else device

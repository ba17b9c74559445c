"""Feature extractors: uint8 images in, float64 feature vectors out. A line in EXTRACTORS ships another extractor."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from coldtune import environment
from coldtune.memory import Batches, MemoryExhaustedError, out_of_memory
from coldtune.metrics.moments import FeatureMoments, check_features, float64_device, to_float64

# name -> module:function that makes the extractor. The module is imported on demand, because networks import slowly.
EXTRACTORS = {
    "digits": "coldtune.metrics.classifiers:digits",
    "mnist": "coldtune.metrics.classifiers:mnist",
    "cifar10": "coldtune.metrics.classifiers:cifar10",
    "inception": "coldtune.metrics.inception:inception",
}
_SHIPPED = frozenset(EXTRACTORS.values())
_JUDGES = "coldtune.metrics.judges"  # imported on demand too. It knows the judges of a home
_LARGEST_DIM = 1 << 16


class Extractor:
    """A network that turns images into the feature vectors of a protocol."""

    def __init__(self, name: str, network: Callable[[Tensor], Tensor], dim: int, sha256: str, input: str) -> None:
        """Wrap a network.

        Args:
            name: The extractor's name in the configuration.
            network: Maps uint8 (B, C, H, W) to floating (B, dim) on the same device.
            dim: The length d of a feature vector.
            sha256: Identifies the weights. For a shipped extractor it is the hash of the file of weights.
            input: How an image reaches the network (size, resize), in words. It is part of the protocol.
        """
        self.name, self.dim, self.sha256, self.input = name, dim, sha256, input
        self._network = network
        self._batches = Batches(sys.maxsize, f"extractor {name}")

    def __call__(self, images: Tensor) -> Tensor:
        """Return the features (B, dim), float64, of uint8 images (B, C, H, W).

        The network runs in evaluation mode, without gradients, autocast or TF32. If memory runs out, it continues in
        smaller batches, with a warning. The features are on the images' device, or on the CPU if that has no float64.

        Raises:
            ValueError: If the images have another shape or dtype, if features are not finite, or if the network is your
                own and raises an error.
        """
        if images.dtype != torch.uint8 or images.ndim != 4:
            raise ValueError(f"images = {images.dtype} {tuple(images.shape)}: allowed is uint8 (B, C, H, W)")
        if isinstance(self._network, nn.Module):
            self._network.eval().to(images.device)
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False), _full_precision():
            parts = self._batches.run(images, self._run) or [self._run(images)]  # also for an empty batch
            features = torch.cat(parts)
        check_features(features, self.dim)
        return to_float64(features)

    def _run(self, images: Tensor) -> Tensor:
        if ":" not in self.name:
            return self._network(images)
        with _reporting(self.name, "fails on images"):
            features = self._network(images)
        if not isinstance(features, Tensor) or features.ndim != 2:
            kind = f"shape {tuple(features.shape)}" if isinstance(features, Tensor) else type(features).__name__
            raise ValueError(f"extractor = {self.name!r}: returns {kind}, but a tensor (B, {self.dim}) is needed")
        return features


def check_origin(name: str, origin: str, instead: str) -> None:
    """Raise ValueError if `name` would run code and was read from a file that may come from elsewhere.

    An extractor `module:attribute` is imported and called. A name that stands on the command line, or in the space of
    a job that is run, is the user's own. A name in the config.yaml of a trial, in an MLflow run or in a study's folder
    may be somebody else's. The environment variable COLDTUNE_ALLOW_CODE=1 allows those too.

    Args:
        name: The extractor's name in the configuration.
        origin: The place where the name was read, for the message.
        instead: What the user can do to name the extractor by a command, for the message.
    """
    if ":" in name and not environment.allows_code():
        module = name.partition(":")[0]
        raise ValueError(
            f"protocol.extractor = {name!r} of {origin} would run code of the module {module}. If you trust it, "
            f"{instead}, or set {environment.ALLOW_CODE}=1"
        )


def check_name(name: str, home: Path | None = None) -> None:
    """Raise ValueError if there is no extractor `name`. Your own is made for that, a shipped one is not.

    Args:
        home: The home in which a trained judge is looked for.
    """
    if ":" in name:
        build_extractor(name)
    elif _is_judge(name):
        importlib.import_module(_JUDGES).find_judge(name, home)
    elif name not in EXTRACTORS:
        raise ValueError(
            f"extractor = {name!r}: allowed are {', '.join(EXTRACTORS)}, the name of a judge that `coldtune data "
            "train-judge` made, or module:attribute of your own"
        )


def _is_judge(name: str) -> bool:
    return name.startswith("judge.") and ":" not in name


def build_extractor(name: str, home: Path | None = None) -> Extractor:
    """Return the extractor called `name`.

    Your own extractor is a callable with an int attribute `dim` that maps uint8 (B, C, H, W) to floating (B, dim).
    Two more attributes are optional:

    - `sha256` (str) identifies the extractor. By default it is the hash of the source file that defines the callable
      and, for an nn.Module, of its parameters and buffers. Set it if anything else matters, for example weights that
      are read at run time, or code in another file.
    - `input` (str) says in words how the extractor resizes, for the protocol's record.

    Args:
        name: A key of EXTRACTORS, or `module:attribute`. The attribute is the callable itself, or a class or function
            that returns it when called without arguments. Nothing of Python's standard library is called. Or the name
            of a judge that was trained on the user's own images (`judge.` and digits of its SHA-256).
        home: The home in which such a judge is looked for.

    Raises:
        ValueError: If the name is unknown, or the attribute cannot be imported, raises an error or is no extractor.
    """
    if ":" not in name:
        check_name(name, home)
    if _is_judge(name):
        judge: Extractor = importlib.import_module(_JUDGES).load_judge(name, home)
        return judge
    made = _load(name, EXTRACTORS.get(name, name))
    if isinstance(made, Extractor):
        return made
    with _reporting(name, "cannot be described"):
        own = getattr(made, "sha256", None)
        sha256 = own if isinstance(own, str) and own else _fingerprint(made)
        return Extractor(name, made, made.dim, sha256, str(getattr(made, "input", "as given")))


def extract_features(
    extractor: Extractor, images: Tensor, batch_size: int = 256, device: torch.device | str | None = None
) -> Tensor:
    """Return the features (N, dim), float64, on the CPU, of uint8 images (N, C, H, W). The network runs on `device`."""
    parts = [extractor(batch).cpu() for batch in batches(images, batch_size, device)]
    return torch.cat(parts) if parts else torch.empty(0, extractor.dim, dtype=torch.float64)


def extract_moments(
    extractor: Extractor, images: Tensor, batch_size: int = 256, device: torch.device | str | None = None
) -> FeatureMoments:
    """Return the moments of the features of uint8 images (N, C, H, W), without keeping the features in memory."""
    moments = FeatureMoments(extractor.dim, float64_device(torch.device(device) if device else images.device))
    for batch in batches(images, batch_size, device):
        moments.update(extractor(batch))
    return moments


def batches(images: Tensor, batch_size: int, device: torch.device | str | None = None) -> Iterator[Tensor]:
    """Yield consecutive batches of images (N, ...), moved to `device` unless it is None."""
    if batch_size < 1:
        raise ValueError(f"batch_size = {batch_size}: allowed are integers of at least 1")
    for batch in torch.split(images, batch_size):
        yield batch if device is None else batch.to(device, non_blocking=True)


def _load(name: str, path: str) -> Any:
    module, _, attribute = path.partition(":")
    if _package(module) in sys.stdlib_module_names or (_package(module) == "coldtune" and path not in _SHIPPED):
        raise ValueError(f"extractor = {name!r}: {module} contains no extractor. Name a module of your own")
    try:
        made = getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        searched = "Install it, or add its folder to the environment variable PYTHONPATH"
        raise ValueError(f"extractor = {name!r}: cannot be imported: {error}. {searched}") from error
    except (ImportError, AttributeError) as error:
        raise ValueError(f"extractor = {name!r}: cannot be imported: {_first_line(error)}") from error
    except (Exception, SystemExit) as error:  # the module runs any code
        raise ValueError(f"extractor = {name!r}: cannot be imported: {_describe(error)}") from error
    if inspect.isclass(made) or isinstance(made, partial) or (inspect.isroutine(made) and not hasattr(made, "dim")):
        _check_factory(name, module, made)
        with _reporting(name, "fails when it is called"):
            made = made()
    if not callable(made) or not _is_dim(getattr(made, "dim", None)):
        raise ValueError(
            f"extractor = {name!r}: must be, or return, a callable with an int attribute dim, 1..{_LARGEST_DIM:,}"
        )
    return made


def _package(module: str) -> str:
    return module.partition(".")[0]


def _is_dim(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= _LARGEST_DIM


def _check_factory(name: str, module: str, factory: Any) -> None:
    """Raise ValueError if a class or function is not one that can make an extractor. It is not called."""
    made_by = factory.func if isinstance(factory, partial) else factory
    defined = getattr(made_by, "__module__", None) or "builtins"
    if inspect.isbuiltin(made_by) or _package(defined) != _package(module):
        raise ValueError(f"extractor = {name!r}: is defined in {defined}, but must be defined in {_package(module)}")
    if inspect.iscoroutinefunction(made_by) or inspect.isgeneratorfunction(made_by):
        raise ValueError(f"extractor = {name!r}: is a coroutine or a generator, but a class or function is needed")
    try:
        inspect.signature(factory).bind()
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"extractor = {name!r}: is called without arguments, but does not allow that ({_first_line(error)})"
        ) from error


@contextmanager
def _reporting(name: str, problem: str) -> Iterator[None]:
    """Turn every error of the user's own code into a ValueError of one line, even its exit.

    Exhausted memory stays what it is, so that smaller batches can be tried.
    """
    try:
        yield
    except (Exception, SystemExit) as error:
        if out_of_memory(error) or isinstance(error, MemoryError | MemoryExhaustedError):
            raise
        raise ValueError(f"extractor = {name!r}: {problem}: {_describe(error)}") from error


def _describe(error: BaseException) -> str:
    return f"{type(error).__name__}: {_first_line(error)}"


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]


def _fingerprint(made: Any) -> str:
    """Return the SHA-256 of the source file of the object's class or function, and of a module's state."""
    code = made if inspect.isfunction(made) else type(made)
    sha = hashlib.sha256(Path(inspect.getfile(code)).read_bytes())
    if isinstance(made, nn.Module):
        for name, tensor in sorted(made.state_dict().items()):
            sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            sha.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()


@contextmanager
def _full_precision() -> Iterator[None]:
    """Use IEEE float32 and deterministic convolutions, and restore the settings afterwards."""
    convolutions: Any = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    settings: list[tuple[Any, str, Any]] = [
        (torch.backends.cuda.matmul, "fp32_precision", "ieee"),
        (convolutions, "fp32_precision", "ieee"),
        (torch.backends.cudnn, "deterministic", True),
        (torch.backends.cudnn, "benchmark", False),
    ]
    before = [getattr(owner, name) for owner, name, _ in settings]
    for owner, name, value in settings:
        setattr(owner, name, value)
    try:
        yield
    finally:
        for (owner, name, _), value in zip(settings, before, strict=True):
            setattr(owner, name, value)

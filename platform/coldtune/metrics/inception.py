"""The Inception network of FID: the TensorFlow weights of 2015-12-05 in PyTorch, by the torch-fidelity package.

The file of weights is found or downloaded once. Its SHA-256 is checked before anything is loaded from it.
"""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path
from typing import IO

import torch
from torch import Tensor, nn

from coldtune.metrics.extractors import EXTRACTORS, Extractor

VARIABLE = "COLDTUNE_INCEPTION"  # environment variable that names the file of weights
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
DIM = 2048
INPUT = "1 channel repeated to 3, bilinear to 299x299 as TensorFlow 1 does it (torch-fidelity), (x - 128) / 128"


def inception() -> Extractor:
    """Return the Inception network of Heusel et al. (2017), d = 2048: the features before its last layer (pool3).

    The weights come from the first of these places:

    1. The file that the environment variable COLDTUNE_INCEPTION names.
    2. The cache of torch hub, which torch-fidelity also uses for this file.
    3. The published address, from which they are downloaded into that cache (96 MB).

    FID as an objective needs N >= 4 d = 8,192 images, and one CPU thread processes about 5 images a second. Without a
    GPU, search with a classifier instead.

    Raises:
        ValueError: If there are no weights, or other weights than those published. The message names the ways to
            provide them.
    """
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

    folder = Path(torch.hub.get_dir()) / "checkpoints"
    return load_inception(weights_file(os.environ.get(VARIABLE), folder, URL_INCEPTION_V3))


def describe_inception() -> Extractor:
    """Return the extractor without its network, for checks before 96 MB are downloaded. It takes no images."""
    return Extractor("inception", _no_network, DIM, SHA256, INPUT)


def _no_network(images: Tensor) -> Tensor:
    raise AssertionError(f"the network was not loaded, but called with {tuple(images.shape)}")


def load_inception(path: Path, sha256: str = SHA256) -> Extractor:
    """Return the extractor of the weights in `path`. Raises ValueError if the file's SHA-256 is not `sha256`."""
    data = path.read_bytes()
    actual = hashlib.sha256(data).hexdigest()
    if actual != sha256:
        raise ValueError(
            f"extractor 'inception': {path} has SHA-256 {actual}, published is {sha256}: the file is damaged or was "
            f"replaced. Delete it to download it anew, or name the right file in {VARIABLE}"
        )
    return Extractor("inception", _Pool3(_network(data)), DIM, sha256, INPUT)


def weights_file(named: str | None, folder: Path, address: str, sha256: str = SHA256) -> Path:
    """Return the file of weights: the file that the user named, or else a file in `folder`, downloaded if necessary.

    Several processes may call this at the same time.

    Args:
        named: The file that the user named, or None.
        folder: The folder of the downloaded file. A file whose hash is not `sha256` is downloaded again.
        address: The published address.
        sha256: The published hash.

    Raises:
        ValueError: If the named file is absent, or the download fails.
    """
    from coldtune.data.download import Remote, fetch
    from coldtune.data.progress import show

    if named:
        if not Path(named).is_file():
            raise ValueError(f"{VARIABLE} = {named!r}: no such file; allowed is {_published(address, sha256)}")
        return Path(named)
    target = folder / address.rpartition("/")[2]
    if _has_hash(target, sha256):
        return target
    try:
        with show(True) as bars:
            return fetch(Remote(target.name, (address,), "sha256", sha256), folder, bars)
    except (ValueError, OSError) as error:
        raise ValueError(
            f"extractor 'inception': {error}. Put {_published(address, sha256)} into {folder}, or anywhere else and "
            f"name it in the environment variable {VARIABLE}. Other extractors need no download (protocol.extractor: "
            f"{', '.join(name for name in EXTRACTORS if name != 'inception')})"
        ) from error


def _published(address: str, sha256: str) -> str:
    return f"the file published at {address} (SHA-256 {sha256})"


def _has_hash(path: Path, sha256: str) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == sha256


def _network(data: bytes) -> nn.Module:
    """Return torch-fidelity's network with the weights in `data`. Raises an error if `data` contains code."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    torch.load(io.BytesIO(data), weights_only=True)  # refuses code, which the class below would run
    file: IO[bytes] = io.BytesIO(data)  # from memory, so that nobody can replace the file after the check
    network: nn.Module = FeatureExtractorInceptionV3("inception", [str(DIM)], feature_extractor_weights_path=file)
    return network


class _Pool3(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Map uint8 (B, 1 or 3, H, W) to (B, 2048). Raises ValueError for other numbers of channels."""
        if images.shape[1] not in (1, 3):
            raise ValueError(f"images of {images.shape[1]} channels: inception takes 1 or 3; choose another extractor")
        features: Tensor = self.network(images.expand(-1, 3, -1, -1))[0]
        return features

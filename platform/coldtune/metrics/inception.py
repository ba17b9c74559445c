"""The Inception network of FID: the TensorFlow weights of 2015-12-05 in PyTorch, by the torch-fidelity package.

The file of weights is found, or downloaded once, and its SHA-256 checked before anything of it is loaded.
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
    """The Inception network of Heusel et al. (2017), d = 2048: the features before its last layer (pool3).

    Weights: the file that the environment variable COLDTUNE_INCEPTION names; else the one in torch hub's cache, where
    torch-fidelity keeps the same file; else downloaded there, 96 MB. An objective needs N >= 4 d = 8,192 images, and
    one CPU thread judges about 5 images a second, so without a GPU the classifiers are the judges to search with.
    ValueError where the weights cannot be had, naming the ways, or are other ones.
    """
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

    folder = Path(torch.hub.get_dir()) / "checkpoints"
    return load_inception(weights_file(os.environ.get(VARIABLE), folder, URL_INCEPTION_V3))


def load_inception(path: Path, sha256: str = SHA256) -> Extractor:
    """The extractor of the weights in `path`. ValueError where the file's SHA-256 is another one than `sha256`."""
    data = path.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise ValueError(
            f"extractor 'inception': {path} has SHA-256 {found}, published is {sha256}: the file is damaged or another "
            f"one; delete it to download it anew, or name the right one in {VARIABLE}"
        )
    return Extractor("inception", _Pool3(_network(data)), DIM, sha256, INPUT)


def weights_file(named: str | None, folder: Path, address: str, sha256: str = SHA256) -> Path:
    """The file of weights: the one that the user `named`, else the one in `folder`, downloaded from `address`.

    A file in `folder` that is not the published one is downloaded again. Several processes may ask at once. ValueError
    where a named file is absent, or the download fails.
    """
    from coldtune.data.download import Remote, fetch
    from coldtune.data.progress import show

    if named:
        if not Path(named).is_file():
            raise ValueError(f"{VARIABLE} = {named!r}: no such file; allowed is {_what(address, sha256)}")
        return Path(named)
    target = folder / address.rpartition("/")[2]
    if _holds(target, sha256):
        return target
    try:
        with show(True) as bars:
            return fetch(Remote(target.name, (address,), "sha256", sha256), folder, bars)
    except (ValueError, OSError) as error:
        raise ValueError(
            f"extractor 'inception': {error}. Either put {_what(address, sha256)} into {folder}, or anywhere and name "
            f"it in the environment variable {VARIABLE}; another extractor needs no download (protocol.extractor: "
            f"{', '.join(name for name in EXTRACTORS if name != 'inception')})"
        ) from error


def _what(address: str, sha256: str) -> str:
    return f"the file published at {address} (SHA-256 {sha256})"


def _holds(path: Path, sha256: str) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == sha256


def _network(data: bytes) -> nn.Module:
    """torch-fidelity's network with the weights in `data`, which hold tensors and nothing that runs."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    torch.load(io.BytesIO(data), weights_only=True)  # the class itself would load anything, so this comes first
    file: IO[bytes] = io.BytesIO(data)  # the very bytes that were checked
    network: nn.Module = FeatureExtractorInceptionV3("inception", [str(DIM)], feature_extractor_weights_path=file)
    return network


class _Pool3(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Uint8 (B, 1 or 3, H, W) -> (B, 2048). ValueError for other numbers of channels."""
        if images.shape[1] not in (1, 3):
            raise ValueError(f"images of {images.shape[1]} channels: inception takes 1 or 3; choose another extractor")
        features: Tensor = self.network(images.expand(-1, 3, -1, -1))[0]
        return features

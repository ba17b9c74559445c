"""Datasets: prepared once into memory-mapped Arrow files, split by the hash of the pixels, fingerprinted."""

from coldtune.data.augment import augment
from coldtune.data.config import DataConfig
from coldtune.data.convert import to_float, to_uint8
from coldtune.data.dataset import Dataset, Split
from coldtune.data.prepare import prepare, prepared
from coldtune.data.read_images import read_images
from coldtune.data.registry import names
from coldtune.data.verify import Verification, verify

__all__ = [
    "DataConfig",
    "Dataset",
    "Split",
    "Verification",
    "augment",
    "names",
    "prepare",
    "prepared",
    "read_images",
    "to_float",
    "to_uint8",
    "verify",
]

"""Datasets: prepared once into memory-mapped Arrow files, split by the hash of the pixels, fingerprinted."""

from coldtune.data.config import DataConfig
from coldtune.data.convert import to_float, to_uint8
from coldtune.data.dataset import Dataset, Split
from coldtune.data.prepare import prepare, prepared
from coldtune.data.registry import names

__all__ = ["DataConfig", "Dataset", "Split", "names", "prepare", "prepared", "to_float", "to_uint8"]

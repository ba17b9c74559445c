"""Counter-based randomness: every random number is a hash of (seed, stream, position), never of what was drawn before.

So image i gets the same numbers whatever the batch size, the order of the batches, the number of workers or the
device, which `torch.Generator` does not give (its CPU and CUDA streams differ). Integers and uniforms are equal bit for
bit on every device; Gaussians go through log, cos and sin and agree to about 1e-6.

The hash is the finaliser of splitmix64 (Stafford's variant 13; Steele, Lea, Flood: Fast splittable pseudorandom number
generators, OOPSLA 2014) in int64 tensor operations: multiplication wraps modulo 2^64, and a logical shift is an
arithmetic one with the sign bits masked off. With w the odd constant 0x9E3779B97F4A7C15 (2^64 / golden ratio):

    key(seed, stream)            = mix(mix(seed + w) + mix(stream + w))
    word(seed, stream, position) = mix(key + w * (position + 1))        a splitmix64 sequence that starts at its key

Statistically sound for images, masks and training steps; not for cryptography.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

_MASK = (1 << 64) - 1
_WEYL = 0x9E3779B97F4A7C15
_MULTIPLIERS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
_MAX_RANGE = 1 << 31


@lru_cache(maxsize=1024)
def stream(name: str) -> int:
    """The stream called `name`: 63 bits of its SHA-256, so that parts of a program need no common list of numbers."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1


def derive(seed: int, stream: int, positions: Tensor) -> Tensor:
    """Seeds of numbered things: word(seed, stream, position) for each of `positions`.

    seed, stream: any Python integer, taken modulo 2^64. positions: int64 of any shape, such as image indices or the
    count of samples seen so far. Returns int64 of the same shape and device, over the whole int64 range; distinct
    positions give distinct seeds. Evaluation derives from the protocol's seed, training from the run's.
    """
    _check_int64("positions", positions)
    key = _mix_int(_mix_int(seed + _WEYL) + _mix_int(stream + _WEYL))
    return _mix((positions + 1) * _signed(_WEYL) + _signed(key))


def fold(seeds: Tensor, stream: int) -> Tensor:
    """New seeds, int64 (B,), from old ones and a number: for a second, independent draw of the same images."""
    return words(seeds, stream, 1)[:, 0]


def words(seeds: Tensor, stream: int, count: int) -> Tensor:
    """The raw hash: int64 (B, count) of 64 random bits each, for seeds (B,) and positions 0..count-1."""
    _check_int64("seeds", seeds)
    if seeds.ndim != 1:
        raise ValueError(f"seeds of shape {tuple(seeds.shape)}: must be one-dimensional, one seed per image")
    key = _mix(_mix(seeds + _signed(_WEYL)) + _signed(_mix_int(stream + _WEYL)))
    counter = torch.arange(1, count + 1, device=seeds.device) * _signed(_WEYL)
    return _mix(key[:, None] + counter)


def integers(seeds: Tensor, stream: int, low: int, high: int, shape: Sequence[int] = ()) -> Tensor:
    """Integers in [low, high), int64 (B, *shape), for seeds int64 (B,).

    high - low must be 1..2^31. From 32 random bits by multiplication, so a value's probability is off by less than
    2^-32 absolutely (relatively (high - low) / 2^32).
    """
    if not 1 <= high - low <= _MAX_RANGE:
        raise ValueError(f"high - low = {high - low}: must be 1..{_MAX_RANGE} (low = {low}, high = {high})")
    bits = _shift_right(words(seeds, stream, math.prod(shape)), 32)
    return (low + _shift_right(bits * (high - low), 32)).reshape(len(seeds), *shape)


def uniform(seeds: Tensor, stream: int, shape: Sequence[int] = ()) -> Tensor:
    """Uniform numbers in [0, 1), float32 (B, *shape): multiples of 2^-24, equal bit for bit on every device."""
    bits = _shift_right(words(seeds, stream, math.prod(shape)), 40)
    return (bits.to(torch.float32) * 2.0**-24).reshape(len(seeds), *shape)


def normal(seeds: Tensor, stream: int, shape: Sequence[int] = ()) -> Tensor:
    """Standard Gaussian numbers, float32 (B, *shape), by Box and Muller: |z| <= 6.66; devices agree to about 1e-6.

    One 64-bit word makes two numbers. Computed in float64 where the device has it (all but Apple's), because float32
    logarithms and cosines differ between devices by more than the promise.
    """
    count = math.prod(shape)
    pairs = words(seeds, stream, (count + 1) // 2)
    real = torch.float32 if seeds.device.type == "mps" else torch.float64
    radius = torch.sqrt(-2.0 * torch.log((_shift_right(pairs, 32).to(real) + 1.0) * 2.0**-32))
    angle = (pairs & 0xFFFFFFFF).to(real) * (2.0 * math.pi * 2.0**-32)
    both = torch.stack((radius * torch.cos(angle), radius * torch.sin(angle)), dim=-1)
    return both.flatten(1)[:, :count].to(torch.float32).reshape(len(seeds), *shape)


def _mix(x: Tensor) -> Tensor:
    x = (x ^ _shift_right(x, 30)) * _signed(_MULTIPLIERS[0])
    x = (x ^ _shift_right(x, 27)) * _signed(_MULTIPLIERS[1])
    return x ^ _shift_right(x, 31)


def _mix_int(x: int) -> int:
    """`_mix` of one Python integer, as an unsigned 64-bit one."""
    x &= _MASK
    x = (x ^ (x >> 30)) * _MULTIPLIERS[0] & _MASK
    x = (x ^ (x >> 27)) * _MULTIPLIERS[1] & _MASK
    return x ^ (x >> 31)


def _shift_right(x: Tensor, bits: int) -> Tensor:
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _signed(x: int) -> int:
    """The int64 with the bits of the unsigned `x`: torch has no wrap-around arithmetic on uint64."""
    return x - (1 << 64) if x >> 63 else x


def _check_int64(name: str, value: Tensor) -> None:
    if value.dtype != torch.int64:
        raise ValueError(f"{name} of dtype {value.dtype}: must be torch.int64")

"""Counter-based random numbers: each is a hash of (seed, stream, position), and never of what was drawn before.

So image i gets the same numbers whatever the batch size, the order of the batches, the number of workers or the device.
`torch.Generator` cannot promise this, because its CPU and CUDA streams differ. Integers and uniform numbers are equal
bit for bit on every device. Gaussian numbers use log, cos and sin, and agree to about 1e-6.

The hash is the finaliser of splitmix64 in int64 tensor operations (Stafford's variant 13, in Steele, Lea, Flood: Fast
splittable pseudorandom number generators, OOPSLA 2014). Multiplication wraps modulo 2^64, and a logical shift is an
arithmetic shift with the sign bits masked off. With w the odd constant 0x9E3779B97F4A7C15 (2^64 / golden ratio):

    key(seed, stream)            = mix(mix(seed + w) + mix(stream + w))
    word(seed, stream, position) = mix(key + w * (position + 1))        a splitmix64 sequence that starts at its key

The numbers are statistically sound for images, masks and training steps. They are not fit for cryptography.
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
    """Return the number of the stream called `name`: 63 bits of the name's SHA-256.

    Because the number follows from the name, the parts of a program need no common list of numbers.
    """
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1


def derive(seed: int, stream: int, positions: Tensor) -> Tensor:
    """Make a seed for each of many numbered things: word(seed, stream, position).

    Evaluation derives its seeds from the protocol's seed, training from the run's seed.

    Args:
        seed: Any Python integer, taken modulo 2^64.
        stream: Any Python integer, taken modulo 2^64.
        positions: int64 of any shape, for example image indices or the count of samples seen so far.

    Returns:
        int64 of the shape and device of `positions`, over the whole int64 range. Distinct positions have distinct
        seeds.
    """
    _check_int64("positions", positions)
    key = _mix_int(_mix_int(seed + _WEYL) + _mix_int(stream + _WEYL))
    return _mix((positions + 1) * _signed(_WEYL) + _signed(key))


def fold(seeds: Tensor, stream: int) -> Tensor:
    """Make new seeds, int64 (B,), from old seeds and a number, for a second and independent draw of the same images."""
    return words(seeds, stream, 1)[:, 0]


def words(seeds: Tensor, stream: int, count: int) -> Tensor:
    """Return the raw hash: 64 random bits each for seeds (B,) and positions 0..count-1, as int64 (B, count)."""
    _check_int64("seeds", seeds)
    if seeds.ndim != 1:
        raise ValueError(f"seeds of shape {tuple(seeds.shape)}: must be one-dimensional, one seed per image")
    key = _mix(_mix(seeds + _signed(_WEYL)) + _signed(_mix_int(stream + _WEYL)))
    counter = torch.arange(1, count + 1, device=seeds.device) * _signed(_WEYL)
    return _mix(key[:, None] + counter)


def integers(seeds: Tensor, stream: int, low: int, high: int, shape: Sequence[int] = ()) -> Tensor:
    """Draw integers in [low, high) for seeds int64 (B,).

    An integer is made from 32 random bits by multiplication. The probability of a value is therefore off by less than
    2^-32, which is a relative error of (high - low) / 2^32.

    Returns:
        int64 (B, *shape).

    Raises:
        ValueError: If high - low is not 1..2^31.
    """
    if not 1 <= high - low <= _MAX_RANGE:
        raise ValueError(f"high - low = {high - low}: must be 1..{_MAX_RANGE} (low = {low}, high = {high})")
    bits = _shift_right(words(seeds, stream, math.prod(shape)), 32)
    return (low + _shift_right(bits * (high - low), 32)).reshape(len(seeds), *shape)


def uniform(seeds: Tensor, stream: int, shape: Sequence[int] = ()) -> Tensor:
    """Draw uniform numbers in [0, 1), float32 (B, *shape): multiples of 2^-24, equal bit for bit on every device."""
    bits = _shift_right(words(seeds, stream, math.prod(shape)), 40)
    return (bits.to(torch.float32) * 2.0**-24).reshape(len(seeds), *shape)


def normal(seeds: Tensor, stream: int, shape: Sequence[int] = ()) -> Tensor:
    """Draw standard Gaussian numbers, float32 (B, *shape), by the method of Box and Muller.

    One 64-bit word makes two numbers, so |z| <= 6.66. Devices agree to about 1e-6. That needs float64, because float32
    logarithms and cosines differ by more between devices. Apple's devices have no float64, so there the numbers are
    computed in float32.
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
    """Compute `_mix` for one Python integer, as an unsigned 64-bit integer."""
    x &= _MASK
    x = (x ^ (x >> 30)) * _MULTIPLIERS[0] & _MASK
    x = (x ^ (x >> 27)) * _MULTIPLIERS[1] & _MASK
    return x ^ (x >> 31)


def _shift_right(x: Tensor, bits: int) -> Tensor:
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _signed(x: int) -> int:
    """Return the int64 with the bits of the unsigned `x`, because torch has no wrap-around arithmetic on uint64."""
    return x - (1 << 64) if x >> 63 else x


def _check_int64(name: str, value: Tensor) -> None:
    if value.dtype != torch.int64:
        raise ValueError(f"{name} of dtype {value.dtype}: must be torch.int64")

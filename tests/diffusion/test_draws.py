"""Counter-based random numbers equal an integer reference, are independent of batches, and pass statistical tests."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from coldtune.diffusion import draws

MASK = 2**64 - 1
WEYL = 0x9E3779B97F4A7C15
SEEDS = draws.derive(0, 0, torch.arange(4096))


def mix(z):
    """Compute the output function of splitmix64 with Python's integers."""
    z &= MASK
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & MASK
    return z ^ (z >> 31)


def word(seed, stream, position):
    key = mix(mix(seed + WEYL) + mix(stream + WEYL))
    return mix(key + WEYL * (position + 1))


def unsigned(values):
    return [value & MASK for value in values.flatten().tolist()]


def test_reference_hash_equals_published_splitmix64():
    """The published sequence has the seed 1234567."""
    published = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert [mix(1234567 + WEYL * (i + 1)) for i in range(5)] == published


@pytest.mark.parametrize("seed", [0, 1, -1, 2**63 - 1, -(2**63), 0x123456789ABCDEF])
@pytest.mark.parametrize("stream", [0, 7, draws.stream("test")])
def test_words_equal_reference_hash(seed, stream):
    expected = [word(seed, stream, i) for i in range(6)]
    assert unsigned(draws.words(torch.tensor([seed]), stream, 6)) == expected
    assert unsigned(draws.derive(seed, stream, torch.arange(6))) == expected


def test_uniform_and_integers_are_leading_bits_of_words():
    seeds, expected = torch.tensor([3, -5]), [[word(s, 9, i) for i in range(6)] for s in (3, -5)]
    uniform = draws.uniform(seeds, 9, (2, 3)).flatten(1).tolist()
    integers = draws.integers(seeds, 9, -4, 13, (6,)).tolist()
    for i in range(2):
        assert uniform[i] == [(w >> 40) / 2**24 for w in expected[i]]
        assert integers[i] == [-4 + ((w >> 32) * 17 >> 32) for w in expected[i]]


def test_normal_is_box_muller_of_words():
    values = draws.normal(torch.tensor([11]), 2, (5,))[0].tolist()
    expected = []
    for i in range(3):
        w = word(11, 2, i)
        radius = math.sqrt(-2 * math.log(((w >> 32) + 1) / 2**32))
        angle = 2 * math.pi * (w & 0xFFFFFFFF) / 2**32
        expected += [radius * math.cos(angle), radius * math.sin(angle)]
    assert values == pytest.approx(expected[:5], abs=1e-6)


@pytest.mark.parametrize("draw", [draws.uniform, draws.normal])
def test_draws_depend_only_on_seed_of_image(draw):
    seeds = SEEDS[:64]
    together = draw(seeds, 5, (3, 4, 4))
    shuffled = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(draw(seeds[shuffled], 5, (3, 4, 4)), together[shuffled])
    one_by_one = [draw(seeds[i : i + 1], 5, (3, 4, 4)) for i in range(64)]
    torch.testing.assert_close(torch.cat(one_by_one), together, rtol=0, atol=1e-6 if draw is draws.normal else 0)


def test_derive_ignores_order_and_never_collides():
    positions = torch.arange(200_000)
    seeds = draws.derive(42, 1, positions)
    assert torch.equal(draws.derive(42, 1, positions.flip(0)), seeds.flip(0))
    assert len(seeds.unique()) == len(seeds)
    assert not torch.equal(seeds, draws.derive(43, 1, positions))
    assert not torch.equal(seeds, draws.derive(42, 2, positions))
    assert draws.derive(42, 1, positions.view(2, -1)).shape == (2, 100_000)


def test_stream_numbers_are_stable_and_distinct():
    names = ["mask.center", "mask.color", "snow", "noise", "training.t"]
    assert len({draws.stream(name) for name in names}) == len(names)
    assert all(0 <= draws.stream(name) < 2**63 for name in names)
    # The SHA-256 of "abc" begins with ba7816bf8f01cfea (FIPS 180-4). The stream is its first 63 bits.
    assert draws.stream("abc") == 0xBA7816BF8F01CFEA >> 1


def test_uniform_draws_are_uniform():
    values = draws.uniform(SEEDS, 1, (64,)).flatten()
    assert 0 <= values.min() < 1e-4
    assert 1 - 1e-4 < values.max() < 1
    assert stats.chisquare(torch.histc(values, 256, 0, 1).numpy()).pvalue > 1e-4


@pytest.mark.parametrize(("low", "high"), [(0, 2), (1, 21), (-3, 4), (0, 1000)])
def test_integers_draws_are_uniform(low, high):
    values = draws.integers(SEEDS, 1, low, high, (64,))
    counts = torch.bincount(values.flatten() - low)
    assert values.min() == low
    assert values.max() == high - 1
    assert stats.chisquare(counts.numpy()).pvalue > 1e-4


def test_normal_draws_are_normal():
    values = draws.normal(SEEDS, 1, (32,)).flatten().double().numpy()
    assert stats.kstest(values, "norm").pvalue > 1e-4
    assert abs(stats.kurtosis(values)) < 0.05
    assert values.max() < math.sqrt(64 * math.log(2))


@pytest.mark.parametrize(
    ("name", "a", "b"),
    [
        ("neighbouring positions", draws.uniform(SEEDS, 1, (65,))[:, :-1], draws.uniform(SEEDS, 1, (65,))[:, 1:]),
        (
            "neighbouring seeds",
            draws.uniform(torch.arange(4096), 1, (64,)),
            draws.uniform(torch.arange(4096) + 1, 1, (64,)),
        ),
        ("neighbouring streams", draws.uniform(SEEDS, 1, (64,)), draws.uniform(SEEDS, 2, (64,))),
        ("a fold", draws.uniform(SEEDS, 1, (64,)), draws.uniform(draws.fold(SEEDS, 1), 1, (64,))),
        ("the two of a pair", draws.normal(SEEDS, 1, (64,))[:, ::2], draws.normal(SEEDS, 1, (64,))[:, 1::2]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_draws_of_neighbours_are_uncorrelated(name, a, b):
    """Test the values and their distance from the mean, with five standard errors of at least 131,072 pairs."""
    bound = 5 / math.sqrt(a.numel())
    for f in (lambda v: v, lambda v: (v - v.mean()).abs()):
        assert abs(torch.corrcoef(torch.stack((f(a).flatten(), f(b).flatten())).double())[0, 1]) < bound, name


def test_words_one_seed_bit_flips_half_of_the_bits():
    seeds = SEEDS[:256]
    before = draws.words(seeds, 3, 1)
    for bit in range(63):
        changed = before ^ draws.words(seeds ^ (1 << bit), 3, 1)
        flips = [bin(value).count("1") for value in unsigned(changed)]
        # A binomial of 64 fair coins has sd 4, and the mean of 256 binomials has sd 0.25.
        assert abs(sum(flips) / len(flips) - 32) < 1.5


def test_draws_invalid_arguments_are_refused():
    with pytest.raises(ValueError, match=r"seeds of dtype torch.int32: must be torch.int64"):
        draws.uniform(torch.zeros(3, dtype=torch.int32), 0)
    with pytest.raises(ValueError, match=r"seeds of shape \(2, 2\): must be one-dimensional"):
        draws.uniform(torch.zeros(2, 2, dtype=torch.int64), 0)
    with pytest.raises(ValueError, match=r"positions of dtype torch.float32"):
        draws.derive(0, 0, torch.zeros(3))
    with pytest.raises(ValueError, match=r"high - low = 0: must be 1\.\.2147483648 \(low = 3, high = 3\)"):
        draws.integers(SEEDS, 0, 3, 3)

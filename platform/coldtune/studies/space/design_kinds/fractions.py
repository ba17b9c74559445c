"""The algebra of two-level fractions: generators, words, resolution and aliases.

A word is a set of factors, as an int with a bit for each factor. The product of two words is their symmetric
difference, because the square of a factor, which is +1 or -1, is 1. So the product of ints is `^`.
See Box, Hunter and Hunter, Statistics for Experimenters, chapter 6.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_MOST_WORK = 2_000_000  # words that a search computes, after which the best set of generators so far is taken


@dataclass(frozen=True)
class Fraction:
    """A regular fraction 2^(k-p) of the 2^k combinations of k factors.

    Attributes:
        factors: k.
        words: The defining relation: all 2^p - 1 products of the generators. Each equals +1 in every run.
    """

    factors: int
    words: tuple[int, ...]

    @property
    def generators(self) -> int:
        """The number of generators, p."""
        return (len(self.words) + 1).bit_length() - 1

    @property
    def runs(self) -> int:
        """The number of combinations in the fraction, 2^(k-p)."""
        return 1 << (self.factors - self.generators)

    @property
    def resolution(self) -> int:
        """The length of the shortest word. A full factorial has no word, and its resolution is k + 1."""
        return min(map(int.bit_count, self.words), default=self.factors + 1)

    def combinations(self) -> Iterator[int]:
        """Yield the fraction's combinations, each as the set of the factors at -1. The first is the empty set."""
        for combination in range(1 << self.factors):
            if all((combination & word).bit_count() % 2 == 0 for word in self.words):
                yield combination

    def aliases(self, effect: int) -> list[int]:
        """Return the effects that the fraction cannot tell from `effect`, the shortest first."""
        return sorted((effect ^ word for word in self.words), key=lambda word: (word.bit_count(), word))


def find_fraction(factors: int, resolution: int) -> Fraction:
    """Return the smallest fraction of at least the given resolution, with the fewest short words.

    The first k - p factors are basic: the fraction has all of their combinations. Each other factor is the product of
    some basic factors.

    A search is cut off if it takes too long, so a fraction of more than 11 factors may have more short words than
    necessary.

    Args:
        factors: k, the number of factors.
        resolution: The least length of a word, from 3 on.
    """
    basic = 1
    while True:
        if found := _search(factors, basic, resolution):
            return found
        basic += 1


def _search(factors: int, basic: int, resolution: int) -> Fraction | None:
    """Return the best fraction with a number of basic factors. None if no fraction has the resolution."""
    added = factors - basic
    if added <= 0:
        return Fraction(factors, ())
    # A generator that is the product of n basic factors is a word of length n + 1.
    products = [word for word in range(1, 1 << basic) if word.bit_count() + 1 >= resolution]
    best: tuple[tuple[int, ...], tuple[int, ...]] | None = None
    work = 0

    def extend(words: tuple[int, ...], start: int, number: int) -> None:
        nonlocal best, work
        if number == added:
            lengths = [word.bit_count() for word in words]
            pattern = tuple(lengths.count(length) for length in range(1, factors + 1))
            best = min(best or (pattern, words), (pattern, words))
            return
        for place in range(start, len(products)):
            if work >= _MOST_WORK:
                return
            work += len(words) + 1
            generator = products[place] | 1 << (basic + number)
            new = (generator, *(word ^ generator for word in words))
            if all(word.bit_count() >= resolution for word in new):
                extend((*words, *new), place + 1, number + 1)

    extend((), 0, 0)
    return None if best is None else Fraction(factors, best[1])


def describe_effect(effect: int, names: Sequence[str]) -> str:
    """Return an effect in words: `T`, or `T x lr` for an interaction."""
    return " x ".join(name for place, name in enumerate(names) if effect >> place & 1)

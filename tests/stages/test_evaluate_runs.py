"""Evaluations of finished trials: their progress and their protocol."""

from __future__ import annotations

import pytest
import torch

from coldtune import presets
from coldtune.data.progress import Advance, Bars
from coldtune.metrics import build_extractor, extract_features
from coldtune.stages.evaluate import with_protocol
from coldtune.stages.evaluation_progress import count_evaluations, with_bar
from coldtune.stages.trial import parse_trial


@pytest.mark.parametrize("work", [[0, 10, 10, 40], [0, 0, 0, 40], [0, 10, 0, 0]])
def test_count_evaluations_ignores_found_sets(work):
    """A set that is found is skipped without a call, and must not count as work."""
    done: list[float] = []
    passed = count_evaluations(work, done.append)
    for number, count in enumerate(work):
        for part in range(1, 6) if count else ():
            passed("sample", (number + part / 5) / len(work))
            assert sum(done) == pytest.approx(sum(work[:number]) + count * part / 5)
    assert sum(done) == pytest.approx(sum(work))
    assert min(done) >= 0


def test_with_protocol_keeps_values_that_are_not_given():
    trial = parse_trial(presets.load("digits-quick") | {"protocol": {"num_images": 300, "seed": 5}})
    assert with_protocol(trial) == trial
    changed = with_protocol(trial, split="test", num_images="all").protocol
    assert (changed.split, changed.num_images, changed.seed, changed.extractor) == ("test", None, 5, "digits")
    assert with_protocol(trial, seed=0).protocol.seed == 0


def test_with_protocol_wrong_value_is_refused():
    trial = parse_trial(presets.load("digits-quick"))
    with pytest.raises(ValueError, match=r"protocol\.num_images = 1"):
        with_protocol(trial, num_images=1)


class Counted(Bars):
    """Bars that only record their titles and how much of each was done."""

    def __init__(self) -> None:
        super().__init__()
        self.done: dict[tuple[str, float | None, str], float] = {}

    def start(self, what: str, total: float | None, unit: str) -> Advance:
        self.done[what, total, unit] = 0.0

        def advance(done: float) -> None:
            self.done[what, total, unit] += done

        return advance


def test_with_bar_extracts_equal_features_and_counts_images():
    bars, extractor = Counted(), build_extractor("digits")
    shown = with_bar(extractor, bars, "judge", 40)
    assert not bars.done, "a bar starts with the first image"
    images = torch.randint(256, (40, 1, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(extract_features(shown, images, 7), extract_features(extractor, images, 7))
    assert bars.done == {("judge", 40, "images"): 40}
    parts = ("name", "dim", "sha256", "input")
    assert [getattr(shown, part) for part in parts] == [getattr(extractor, part) for part in parts]

"""What an evaluation counts as work, and what it changes of a protocol."""

from __future__ import annotations

import pytest

from coldtune import presets
from coldtune.stages.evaluate import _passes, judged_by
from coldtune.stages.trial import parse_trial


@pytest.mark.parametrize("work", [[0, 10, 10, 40], [0, 0, 0, 40], [0, 10, 0, 0]])
def test_progress_counts_the_evaluations_that_are_made(work):
    """A set that is found is passed over without a call, and must look like no work at all."""
    done: list[float] = []
    passed = _passes(work, done.append)
    for number, count in enumerate(work):
        for part in range(1, 6) if count else ():
            passed("sample", (number + part / 5) / len(work))
            assert sum(done) == pytest.approx(sum(work[:number]) + count * part / 5)
    assert sum(done) == pytest.approx(sum(work))
    assert min(done) >= 0


def test_what_is_not_named_stays_the_trials_own():
    trial = parse_trial(presets.load("digits-quick") | {"protocol": {"num_images": 300, "seed": 5}})
    assert judged_by(trial) == trial
    changed = judged_by(trial, split="test", num_images="all").protocol
    assert (changed.split, changed.num_images, changed.seed, changed.extractor) == ("test", None, 5, "digits")
    assert judged_by(trial, seed=0).protocol.seed == 0


def test_a_protocol_that_cannot_be_is_refused():
    trial = parse_trial(presets.load("digits-quick"))
    with pytest.raises(ValueError, match=r"protocol\.num_images = 1"):
        judged_by(trial, num_images=1)

"""The noise of settings that share a trained network, whose images are the same."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

import synthetic_study as made_up
from coldtune.config import plain
from coldtune.metrics import Judgement, Protocol, Value
from coldtune.studies.insight.facts import observe
from coldtune.studies.insight.paired_noise import paired_noise
from coldtune.studies.storage.outcome import TrialOutcome
from coldtune.studies.trials.reading import read_study
from judged_trials import PROTOCOL

N = 2000
HARD, OWN = 10.0, 1.0  # sd over images of what all settings share, and of what each has alone
SPACE = "base: digits-quick\nvary: {sampler.num_steps: {low: 2, high: 19}}\nsearch: {algorithm: random}\n"


def judgement(seed: int, protocol: Protocol, fid: float = 3.0) -> Judgement:
    """Return a judgement of which each image's influence is a part that all settings share, and a part of its own."""
    shared, own = (
        torch.randn(protocol.num_images, generator=torch.Generator().manual_seed(each), dtype=torch.float64)
        for each in (0, 1 + seed)
    )
    influences = HARD * shared + OWN * own
    value = Value("fid", fid, protocol.num_images, protocol)
    return Judgement(protocol, {"fid": value}, {"fid": influences - influences.mean()})


def test_paired_noise_is_the_noise_that_images_do_not_share() -> None:
    protocol = PROTOCOL.model_copy(update={"num_images": N})
    judged = [judgement(seed, protocol) for seed in range(9)]
    assert paired_noise(judged, "fid") == pytest.approx(OWN / math.sqrt(N), rel=0.05)
    assert paired_noise([judged[0], judged[0]], "fid") is None, "the same images tell nothing"
    assert paired_noise(judged[:1], "fid") is None
    with pytest.raises(ValueError, match="kid"):
        paired_noise(judged, "kid")


@pytest.mark.parametrize("networks", [1, 2])
def test_noise_of_a_search_of_samplers_is_paired(digits_home: Path, tmp_path: Path, networks: int) -> None:
    (tmp_path / "data").symlink_to(digits_home / "data")
    folder, ledger = made_up.open_study(tmp_path, digits_home, SPACE, settings=["sampler.num_steps=10"])
    protocol = made_up.protocol_of(tmp_path)
    for number in range(30):
        asked = ledger.ask()
        assert asked is not None
        judged = judgement(number, protocol, 3.0 + number / 100)
        (place := tmp_path / "judged" / str(number)).mkdir(parents=True)
        judged.save(place)
        fid = judged.values["fid"].value
        outcome = TrialOutcome(
            {"fid": fid, "fid_low": fid - 1.96, "fid_high": fid + 1.96}, plain(protocol),
            measured={"sampled": str(place)}, checkpoint=f"train/{number % networks}/00000300",
        )  # fmt: skip
        ledger.complete(asked.number, outcome)
    noise = observe(read_study(folder), tmp_path).noise()
    if networks == 1:
        assert noise == (pytest.approx(OWN / math.sqrt(protocol.num_images), rel=0.15), "over the same images")
    else:
        assert noise == (pytest.approx(1.0), "over images"), "half the width of the settings' own intervals by 1.96"

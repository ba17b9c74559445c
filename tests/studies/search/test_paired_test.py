"""Pruning image by image: Optuna's Wilcoxon test on the Judgements of a rung, against SciPy and by its limits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from scipy import stats

from coldtune.config import parse
from coldtune.metrics import Judgement
from coldtune.metrics.protocol import Protocol
from coldtune.metrics.values import Value
from coldtune.store.store import Store
from coldtune.studies.search.paired_test import judgements_of, worse_image_by_image
from coldtune.studies.space.space import Space
from coldtune.studies.spec.build import build_spec
from coldtune.studies.spec.study import StudySpec
from coldtune.studies.storage.backends import open_storage
from coldtune.studies.storage.outcome import Rung, StoredStage, TrialOutcome
from coldtune.studies.trials.ledger import Ledger, open_ledger

N = 64


def protocol(seed: int = 0) -> Protocol:
    known = {
        "extractor": "digits", "extractor_sha256": "0" * 64, "extractor_input": "", "dim": 4, "dataset": "digits",
        "dataset_fingerprint": "0" * 64, "image_shape": (1, 16, 16), "resize": "bilinear", "split": "validation",
        "reference_images": 100, "num_images": N, "seed": seed, "task": "restored",
    }  # fmt: skip
    return parse(Protocol, known)


def judgement(kid: float, spread: float = 0.1, seed: int = 1, **changes: Any) -> Judgement:
    """A Judgement whose pseudo-values scatter about `kid`. The hard images are the same in every Judgement."""
    hard = torch.linspace(-1, 1, N, dtype=torch.float64)
    noise = spread * torch.randn(N, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    influences = hard + noise - (hard + noise).mean()
    made = protocol(**changes)
    return Judgement(made, {"kid": Value("kid", kid, N, made)}, {"kid": influences})


@pytest.mark.parametrize(("mine", "best"), [(0.5, 0.4), (0.42, 0.4), (0.405, 0.4), (0.4, 0.4), (0.3, 0.4)])
def test_worse_image_by_image_matches_scipy_wilcoxon(mine: float, best: float) -> None:
    a, b = judgement(mine, seed=1), judgement(best, seed=2)
    difference = a.influences["kid"] + mine - b.influences["kid"] - best
    p = stats.wilcoxon(difference.numpy(), alternative="greater", zero_method="zsplit").pvalue
    assert worse_image_by_image(a, b, "kid", 0.05) == (p < 0.05 and mine > best)


def test_worse_image_by_image_finds_small_paired_difference() -> None:
    """Pseudo-values differ by 2 between images and by 0.05 between trials, so an unpaired test finds nothing."""
    a, b = judgement(0.45, 0.05, seed=1), judgement(0.4, 0.05, seed=2)
    assert worse_image_by_image(a, b, "kid", 0.01)
    assert not worse_image_by_image(b, a, "kid", 0.01)
    unpaired = stats.mannwhitneyu(a.influences["kid"] + 0.45, b.influences["kid"] + 0.4, alternative="greater")
    assert unpaired.pvalue > 0.2


def test_worse_image_by_image_single_outlier_does_not_decide() -> None:
    a, b = judgement(0.4, seed=1), judgement(0.4, seed=1)
    influences = a.influences["kid"].clone()
    influences[7] += 100.0
    worse = Judgement(a.protocol, {"kid": Value("kid", 0.4 + 100 / N, N, a.protocol)}, {"kid": influences - 100 / N})
    assert worse.values["kid"] > b.values["kid"]
    assert not worse_image_by_image(worse, b, "kid", 0.05)


def test_worse_image_by_image_without_common_protocol_or_metric_is_false() -> None:
    assert not worse_image_by_image(judgement(9.0), judgement(0.4, seed=0), "mind", 0.05)
    other = Judgement(protocol(seed=3), {"kid": Value("kid", 0.4, N, protocol(seed=3))}, judgement(0.4).influences)
    assert not worse_image_by_image(judgement(9.0), other, "kid", 0.05)


@pytest.fixture
def spec(root: Path) -> StudySpec:
    settings = ["training.steps=400", "rungs.steps=[100]", "pruning.kind=wilcoxon", "pruning.startup=1"]
    return build_spec("s", root / "search_spaces" / "training.yaml", settings=settings)


def climb(ledger: Ledger, store: Store, kid: float, spread: float) -> bool:
    number = ledger.ask().number
    key = f"judged{number}"
    store.put("measure", key, lambda folder: judgement(kid, spread, seed=number).save(folder))
    stages = (StoredStage("train_100", "k/100", False, 1.0), StoredStage("measure_100", key, False, 1.0))
    rung = Rung(100, 400, "kid", {"kid": kid}, stages)
    if ledger.prunes(number, rung):
        ledger.prune(number, rung)
        return True
    ledger.complete(number, TrialOutcome({"fid": kid}, stages=stages, rungs={100: {"kid": kid}}))
    return False


def test_wilcoxon_rule_compares_with_best_trial_so_far(spec: StudySpec, tmp_path: Path) -> None:
    """0.6 is clearly worse than the best trial (0.4), 0.41 is not. Without the best Judgement, no trial is pruned."""
    store = Store(tmp_path / "store")
    space = Space(spec.space, spec.base, (1, 16, 16))
    ledger = open_ledger("study", spec, space, open_storage(tmp_path), judgements_of(store))
    ended = [climb(ledger, store, kid, spread) for kid, spread in [(0.5, 0.1), (0.4, 0.1), (0.6, 0.1), (0.41, 1.0)]]
    assert ended == [False, False, True, False]
    pruned = ledger.trials()[2]
    assert pruned.intermediate_values == {100: 0.6}, "one value for each rung, whatever the number of images"
    store.remove("measure", "judged1")
    assert not climb(ledger, store, 9.0, 0.1)


def test_wilcoxon_rule_writes_no_more_to_the_journal_than_median(spec: StudySpec, tmp_path: Path) -> None:
    """Compare the bytes that a pruned trial adds to the journal."""
    store = Store(tmp_path / "store")
    space = Space(spec.space, spec.base, (1, 16, 16))
    sizes = {}
    for kind in ("wilcoxon", "median"):
        (folder := tmp_path / kind).mkdir()
        pruning = type(spec.pruning)(kind=kind, startup=1)
        changed = spec.model_copy(update={"pruning": pruning})
        ledger = open_ledger("study", changed, space, open_storage(folder), judgements_of(store))
        climb(ledger, store, 0.4, 0.1)
        before = (folder / "journal.log").stat().st_size
        assert climb(ledger, store, 0.6, 0.1)
        sizes[kind] = (folder / "journal.log").stat().st_size - before
    assert sizes["wilcoxon"] == pytest.approx(sizes["median"], rel=0.05)

"""The cost of a study before it runs: its trainings, which trials may share, and the evaluations of the network."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from coldtune.data import DataConfig, Dataset, prepare
from coldtune.stages.compute import Compute
from coldtune.stages.keys import train_key
from coldtune.store.checkpoints import StoreCheckpoints
from coldtune.studies.designs.paper_table import build_table_study
from coldtune.studies.estimate.cost import count_trainings, describe_variants
from coldtune.studies.space.space import Space
from coldtune.studies.spec.build import build_spec


@pytest.fixture(scope="module")
def digits(digits_home: Path) -> Dataset:
    return prepare(DataConfig(), digits_home, progress=False)


def space_of(number: str, digits: Dataset, *settings: str) -> Space:
    spec = build_table_study(number, "digits", "quick", settings=settings)
    return Space(spec.space, spec.base, digits.image_shape)


def test_describe_variants_shared_training_is_counted_once(digits: Dataset, tmp_path: Path) -> None:
    said = describe_variants(
        space_of("4", digits, "training.steps=100", "protocol.num_images=300"), digits, {}, tmp_path, [None]
    )
    # Two trainings of 100 steps of 64 images. Noise has 50 steps and blur has 60. Each is sampled by the trial's own
    # sampler, by Algorithm 1 and by direct restoration, which evaluates the network once.
    images, evaluations = 2 * 100 * 64, 300 * 2 * ((50 + 50 + 1) + (60 + 60 + 1))
    assert said == (
        f"2 trainings of 100 steps of 64 images (micro restorer): {images:,} images through the network and back; "
        f"then samples with {evaluations:,} more evaluations"
    )


def test_describe_variants_counts_the_samplings_of_further_draws(digits: Dataset, tmp_path: Path) -> None:
    """Only the trial's own sampler, with its 50 or 60 evaluations, samples again under two further protocol seeds."""
    one, three = (
        describe_variants(
            space_of("4", digits, "training.steps=100", "protocol.num_images=300", f"protocol.draws={draws}"),
            digits, {}, tmp_path, [None],
        )
        for draws in (1, 3)
    )  # fmt: skip
    counts = [int(said.rpartition(" with ")[2].split()[0].replace(",", "")) for said in (one, three)]
    assert counts[1] - counts[0] == 300 * 2 * (2 * 50 + 2 * 60)


@pytest.mark.parametrize("compute", [Compute(device="cpu", threads=1), None])
def test_describe_variants_names_steps_in_the_store(digits: Dataset, tmp_path: Path, compute: Compute | None) -> None:
    space = space_of("6", digits, "training.steps=100")
    key = train_key(space.resolve(space.first), digits, compute=compute)

    def said(*computes: Compute | None) -> str:
        return describe_variants(space, digits, {}, tmp_path, computes)

    StoreCheckpoints(tmp_path, key, final=50).save(50, lambda folder: (folder / "x").touch())
    assert "; the store has 50 of these steps; " in said(Compute(device="gpu"), compute)
    StoreCheckpoints(tmp_path, key, final=100).save(100, lambda folder: (folder / "x").touch())
    assert "1 training of 100 steps" in said(compute)
    assert "; in the store already; " in said(compute)
    assert "the store" not in said(Compute(device="cpu", threads=2)), "another number of threads makes another network"


@pytest.mark.parametrize(
    ("name", "count"), [("samplers", 1), ("noise", 2), ("training", None), ("blur", None), ("degradations", None)]
)
def test_count_trainings_of_searched_spaces(root: Path, digits: Dataset, name: str, count: int | None) -> None:
    spec = build_spec("x", root / "search_spaces" / f"{name}.yaml")
    space = Space(spec.space, spec.base, digits.image_shape)
    assert count_trainings(space, digits, {}) == count
    if count is not None:
        rng = random.Random(0)
        assert len({train_key(space.resolve(space.sample(rng)), digits) for _ in range(30)}) == count


def test_paper_preset_trains_as_long_as_appendix_a1_says() -> None:
    spec = build_table_study("1", "cifar10", "paper")
    training = spec.base["training"]
    assert training["steps"] * training["batch_size"] * training["accumulate"] == 700_000 * 32 * 2, "A.1"

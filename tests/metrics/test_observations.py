from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from safetensors.torch import load_file, save_file

from coldtune.metrics import (
    DISTANCES,
    Extractor,
    Judgement,
    Observations,
    Protocol,
    Reference,
    image_scores,
    judge_observed,
)

DIM, COUNT = 3, 60


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _images(n: int = COUNT, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, 1, 12, 12), generator=generator, dtype=torch.uint8)


def _pixels() -> Extractor:
    """Return an extractor of three pixels: its features are exact, because no network rounds them."""
    return Extractor("pixels", lambda images: images[:, 0, 0, :DIM].double() / 255, DIM, "0" * 64, "as given")


def _protocol() -> Protocol:
    return Protocol(
        extractor="pixels", extractor_sha256="0" * 64, extractor_input="as given", dim=DIM, dataset="noise",
        dataset_fingerprint="1" * 64, image_shape=(1, 12, 12), resize="none", split="test", num_images=COUNT,
        reference_images=90, seed=5,
    )  # fmt: skip


def _judged(observations: Observations) -> Judgement:
    reference = _pixels()(_images(90, seed=2))
    return judge_observed(observations, Reference.of(reference), _protocol(), reference, tuple(DISTANCES))


def _observe(rows: torch.Tensor, batch_size: int) -> Observations:
    observations, numbers = Observations(DIM, pairs=True), _protocol().image_indices()
    for part in rows.split(batch_size):
        observations.observe(numbers[part], _images()[part], _images(seed=1)[part], _pixels())
    return observations


def _work(rank: int, world: int, folder: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    order = torch.randperm(COUNT, generator=torch.Generator().manual_seed(7))
    mine = (order[:11], order[11:], order[:0])[rank]
    observations = _observe(mine, 4 if rank == 0 else 13)
    observations.reduce()
    (Path(folder) / str(rank)).mkdir()
    _judged(observations).save(Path(folder) / str(rank))
    save_file({"known": observations.ordered(_protocol().image_indices())[0]}, Path(folder) / f"{rank}.safetensors")
    torch.distributed.destroy_process_group()


def test_observations_reduce_unequal_shares_equal_one_process(tmp_path: Path) -> None:
    world = 3  # the third share is empty
    mp.spawn(_work, args=(world, str(tmp_path)), nprocs=world)
    alone = _judged(_observe(torch.arange(COUNT), COUNT))
    for rank in range(world):
        judgement = Judgement.load(tmp_path / str(rank))
        assert set(judgement.values) == {*tuple(DISTANCES), "ssim", "rmse", "psnr"}
        for name, value in alone.values.items():
            found = judgement.values[name]
            assert found.value == pytest.approx(value.value, rel=1e-9), name
            assert (found.low, found.high) == pytest.approx((value.low, value.high), rel=1e-9), name
        for name, influences in alone.influences.items():
            torch.testing.assert_close(judgement.influences[name], influences, rtol=1e-9, atol=1e-12)
        known = load_file(tmp_path / f"{rank}.safetensors")["known"]
        assert torch.equal(known, _pixels()(_images()))


def test_observations_ordered_keeps_scores_and_features_with_image() -> None:
    order = torch.randperm(COUNT, generator=torch.Generator().manual_seed(3))
    features, scores = _observe(order, 7).ordered(_protocol().image_indices())
    assert torch.equal(features, _pixels()(_images()))
    for name, values in image_scores(_images(), _images(seed=1)).items():
        torch.testing.assert_close(scores[name], values, rtol=1e-12, atol=1e-12)


def test_observations_reduce_without_process_group_changes_nothing() -> None:
    observations = _observe(torch.arange(COUNT), 20)
    observations.reduce()
    assert observations.n == COUNT


def test_observations_ordered_missing_or_repeated_images_are_counted() -> None:
    numbers = torch.arange(6)
    observations = Observations(DIM, pairs=False)
    observations.update(numbers[:4], _random(4, DIM))
    with pytest.raises(ValueError, match="2 of 6 images are missing, 0 known twice, 0 not asked for"):
        observations.ordered(numbers)
    observations.update(numbers[3:], _random(3, DIM))
    with pytest.raises(ValueError, match="0 of 6 images are missing, 1 known twice"):
        observations.ordered(numbers)
    with pytest.raises(ValueError, match="1 known twice, 1 not asked for"):
        observations.ordered(numbers[:5])


def test_observations_update_wrong_input_is_refused() -> None:
    pairs, single = Observations(DIM, pairs=True), Observations(DIM, pairs=False)
    scores = {"ssim": torch.ones(4), "mse": torch.zeros(4)}
    with pytest.raises(ValueError, match=r"4 images with .*allowed are integer numbers"):
        pairs.update(torch.arange(4), _random(4, DIM))
    with pytest.raises(ValueError, match="allowed are integer numbers"):
        pairs.update(torch.arange(3), _random(4, DIM), scores)
    with pytest.raises(ValueError, match="allowed are integer numbers"):
        single.update(torch.arange(4.0), _random(4, DIM))
    with pytest.raises(ValueError, match="allowed are integer numbers"):
        single.update(torch.arange(4), _random(4, DIM), scores)
    broken = _random(4, DIM)
    broken[1:3, 0] = torch.nan
    with pytest.raises(ValueError, match="2 of 4 feature vectors hold NaN or infinity"):
        single.update(torch.arange(4), broken)
    assert single.n == pairs.n == 0

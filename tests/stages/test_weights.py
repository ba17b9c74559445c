"""Samplings with other weights of one training: an earlier step, an average of any length, and guidance."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from coldtune import presets
from coldtune.data import Dataset, prepared, to_float, to_uint8
from coldtune.diffusion import nfe, sample
from coldtune.diffusion.samplers import SamplerConfig
from coldtune.stages.chain import BASELINES, SAMPLED, Chain, found_only
from coldtune.stages.evaluate import FinishedTrial
from coldtune.stages.export import export
from coldtune.stages.finished_restorer import find_checkpoints, find_restorer
from coldtune.stages.keys import sample_key, train_key
from coldtune.stages.mlflow_model import write_model
from coldtune.stages.restore import Restoration
from coldtune.stages.rungs import trials_at_rungs
from coldtune.stages.trial import TrialConfig, parse_trial
from coldtune.stages.weights import load_once
from coldtune.store.checkpoints import StoreCheckpoints
from coldtune.store.store import Store
from coldtune.training.loop import TrainingTask, load_restorer, train
from coldtune.training.power_averages import TRACKS

STDS = [0.05, 0.1]
IMAGES = 16


def config(training: Mapping[str, Any] = {}, rungs: tuple[int, ...] = (), **sampler: Any) -> TrialConfig:
    tree = presets.load("digits-quick")
    tree["training"] |= {"steps": 6, "batch_size": 8, "checkpoint_every": 2, "validate_every": 0, **training}
    tree["degradation"]["steps"] = 3
    tree["protocol"] |= {"num_images": IMAGES, "reference": "same"}
    tree["sampler"] |= sampler
    return parse_trial(tree | {"rungs": {"steps": list(rungs), "num_images": IMAGES}})


KEPT: dict[str, Any] = {"snapshot_every": 2, "ema_stds": STDS}


class Trainer:
    """A function that trains, and notes up to which steps."""

    def __init__(self) -> None:
        self.ends: list[tuple[int, int | None]] = []

    def __call__(self, task: TrainingTask, checkpoints: StoreCheckpoints, report: Any) -> Any:
        result = train(task, checkpoints, report)
        self.ends.append((task.training.steps, result.resumed_from))
        return result


@pytest.fixture(scope="module")
def dataset(digits_home: Path) -> Dataset:
    return Dataset.open(prepared(digits_home, "digits")[0])


@pytest.fixture(scope="module")
def trained(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Trainer]:
    """A store with one training that kept its steps 2, 4 and 6."""
    store, trainer = Store(tmp_path_factory.mktemp("store")), Trainer()
    Chain(config(KEPT), dataset, store).train(trainer, lambda *_: None)
    return store, trainer


def images(trial: TrialConfig, dataset: Dataset, store: Store, trainer: Any = found_only) -> torch.Tensor:
    """Return the images of the trial's own sampler, as a trial makes them."""
    chain = Chain(trial, dataset, store)
    checkpoint = chain.train(trainer, lambda *_: None)
    chain.train_earlier(trainer, lambda *_: None)
    return load_file(chain.sample(SAMPLED, trial.sampler, checkpoint).path / "images.safetensors")["images"]


def by_hand(trial: TrialConfig, dataset: Dataset, restorer: Any) -> torch.Tensor:
    """Return the images that a restorer makes of the trial's x_T."""
    chain = Chain(trial, dataset, Store(Path("unused")))
    x = to_float(chain.clean())
    return to_uint8(sample(restorer, chain.degradation, chain.degradation(x, 3), trial.sampler.without_weights()))


def network(store: Store, dataset: Dataset, step: int, track: int | None = None) -> torch.nn.Module:
    trial = config(KEPT)
    folder = store.find("train", f"{Chain(trial, dataset, store).train_key()}/{step:08d}").path
    loaded = load_restorer(folder, trial.restorer, dataset.image_shape, 3)
    if track is not None:
        kept = load_file(folder / TRACKS).items()
        loaded.load_state_dict({name[2:]: w for name, w in kept if name.startswith(f"{track}.")}, strict=False)
    return loaded


def test_chain_at_step_samples_with_that_step_of_the_one_training(trained, dataset: Dataset) -> None:
    store, trainer = trained
    for step in (2, 4, 6):
        trial = config(KEPT, at_step=step)
        assert torch.equal(images(trial, dataset, store), by_hand(trial, dataset, network(store, dataset, step)))
    assert trainer.ends == [(6, None)]


def test_chain_restorer_that_is_kept_between_samplings_changes_no_image(
    trained, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, _ = trained
    loads: list[Path] = []

    def loading(folder: Path, *args: Any, **keys: Any) -> Any:
        loads.append(folder)
        return load_restorer(folder, *args, **keys)

    monkeypatch.setattr("coldtune.stages.chain.load_restorer", loading)
    monkeypatch.setattr("coldtune.stages.weights._last", None)
    ways = [{"num_steps": 2}, {"at_step": 4}, {}, {"ema_std": 0.1}, {"num_steps": 3}, {"clamp": True}]
    trials = [config(KEPT, **way) for way in ways]
    found = {}
    for kept in (0, 1 << 26):
        monkeypatch.setattr("coldtune.stages.weights._MOST_KEPT_BYTES", kept)
        loads.clear()
        chains = [Chain(trial, dataset, store) for trial in trials]
        for chain in chains:  # `train_earlier` looks for no steps if the images are in the store
            chain._earlier = {step: chain._find_step(step) for step in (2, 4)}
        made = [
            chain._sample(trial.sampler, chain.train(found_only, lambda *_: None), lambda _: None)[0]
            for chain, trial in zip(chains, trials, strict=True)
        ]
        found[kept] = (made, len(loads))
    assert all(torch.equal(one, other) for one, other in zip(found[0][0], found[1 << 26][0], strict=True))
    assert (found[0][1], found[1 << 26][1]) == (6, 5), "the last two samplings have one restorer"


def test_load_once_of_a_changed_file_loads_again(tmp_path: Path) -> None:
    file = tmp_path / "ema.safetensors"
    file.write_bytes(b"one")
    first = load_once(("size",), [tmp_path], lambda: torch.nn.Linear(1, 1))
    assert load_once(("size",), [tmp_path], lambda: torch.nn.Linear(1, 1)) is first
    assert load_once(("other size",), [tmp_path], lambda: torch.nn.Linear(1, 1)) is not first
    first = load_once(("size",), [tmp_path], lambda: torch.nn.Linear(1, 1))
    file.write_bytes(b"another")
    assert load_once(("size",), [tmp_path], lambda: torch.nn.Linear(1, 1)) is not first


def test_chain_ema_std_of_a_kept_length_samples_with_that_average(trained, dataset: Dataset) -> None:
    for track, std in enumerate(STDS):
        trial = config(KEPT, ema_std=std, at_step=4)
        expected = by_hand(trial, dataset, network(trained[0], dataset, 4, track))
        assert (images(trial, dataset, trained[0]).int() - expected.int()).abs().max() <= 1


def test_chain_other_ema_stds_share_one_training(trained, dataset: Dataset) -> None:
    made = [images(config(KEPT, ema_std=std), dataset, trained[0]) for std in (0.05, 0.06, 0.08, 0.1)]
    assert all(not torch.equal(one, other) for one, other in pairwise(made))
    assert trained[1].ends == [(6, None)]


def test_chain_snapshots_that_are_there_need_no_lease_and_are_recorded_as_used(
    trained, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(trained[0].at, by="study/7")
    leased: list[str] = []
    whole = Store.lease

    def lease(self: Store, kind: str, key: str, *args: Any, **keys: Any) -> Any:
        leased.append(kind)
        return whole(self, kind, key, *args, **keys)

    monkeypatch.setattr(Store, "lease", lease)
    trial = config(KEPT, ema_std=0.09)
    images(trial, dataset, store)
    assert leased == ["train", "sample"], "of the end of the training, and of the images"
    key = Chain(trial, dataset, store).train_key()
    assert all("study/7" in store.users("train", f"{key}/{step:08d}") for step in (2, 4, 6))


def test_chain_guidance_moves_the_estimate_away_from_the_earlier_step(trained, dataset: Dataset) -> None:
    store, _ = trained
    strong, weak = network(store, dataset, 6), network(store, dataset, 2)
    trial = config(KEPT, guidance=2.5, guidance_step=2)
    expected = by_hand(trial, dataset, lambda x, t: weak(x, t) + 2.5 * (strong(x, t) - weak(x, t)))
    assert (images(trial, dataset, store).int() - expected.int()).abs().max() <= 1


def test_chain_guidance_1_is_plain_sampling_found_again(trained, dataset: Dataset) -> None:
    store, _ = trained
    plain = Chain(config(KEPT), dataset, store)
    one = Chain(config(KEPT, guidance=1, guidance_step=2), dataset, store)
    assert one.sample_key(one.config.sampler) == plain.sample_key(plain.config.sampler)
    assert one.nfe == plain.nfe == 3
    assert Chain(config(KEPT, guidance=1.5, guidance_step=2), dataset, store).nfe == 6
    assert nfe({"num_steps": 2, "guidance": 3.0, "guidance_step": 1}, 3) == 4


def test_chain_step_that_is_gone_is_trained_again(dataset: Dataset, tmp_path: Path) -> None:
    """The training had ended before it was told to keep its steps. They are trained again, up to the last needed."""
    store, trainer = Store(tmp_path), Trainer()
    Chain(config(), dataset, store).train(trainer, lambda *_: None)
    for step in (2, 4):
        store.remove("train", f"{Chain(config(), dataset, store).train_key()}/{step:08d}")
    trial = config({"snapshot_every": 1}, at_step=3, guidance=2, guidance_step=1)
    with pytest.raises(ValueError, match=r"training.steps = 1: no restorer of this training"):
        images(trial, dataset, store)
    made = images(trial, dataset, store, trainer)
    assert trainer.ends == [(6, None), (1, None), (3, 1)]
    fresh = Store(tmp_path / "fresh")
    assert torch.equal(images(trial, dataset, fresh, once := Trainer()), made)
    assert once.ends == [(6, None)], "a training that keeps its steps is not repeated"


def test_chain_run_records_no_training_for_a_kept_step(dataset: Dataset, trained) -> None:
    store, trainer = trained
    chain = Chain(config(KEPT | {"report_every": 1}, ema_std=0.07, at_step=4), dataset, store)
    outcome = chain.run(trainer, lambda *_: None)
    assert [record.stage for record in outcome.stages if record.stage.startswith("train")] == ["train"]
    assert outcome.checkpoint.name == "00000006"
    direct, _ = chain._sample(BASELINES["direct"], outcome.checkpoint, lambda _: None)
    assert torch.equal(load_file(outcome.images["direct"] / "images.safetensors")["images"], direct)
    assert trainer.ends == [(6, None)]


def test_chain_judge_draws_samples_with_the_weights_of_the_sampler(trained, dataset: Dataset) -> None:
    """The images under the next protocol seed are those of a trial with that seed, found or not found before."""
    trial = config(KEPT, at_step=4, guidance=2, guidance_step=2)
    seeds = {
        number: trial.model_copy(update={"protocol": trial.protocol.model_copy(update={"seed": number})})
        for number in (0, 1)
    }
    twice = seeds[0].model_copy(update={"protocol": seeds[0].protocol.model_copy(update={"draws": 2})})
    images(seeds[0], dataset, trained[0])  # with only the first of the two samplings in the store
    chain = Chain(twice, dataset, trained[0])
    outcome = chain.judge_draws(chain.run(found_only, lambda *_: None))
    alone = Chain(seeds[1], dataset, trained[0])
    key = alone.measure_key(alone.sample_key(alone.config.sampler))
    assert [record.key for record in outcome.stages if record.stage == "measure_seed_1"] == [key]


def test_chain_progress_of_guided_sampling_ends_at_1(dataset: Dataset, trained) -> None:
    chain, shares = Chain(config(KEPT, guidance=2, guidance_step=4), dataset, trained[0]), []
    checkpoint = chain.train(found_only, lambda *_: None)
    chain.train_earlier(found_only, lambda *_: None)
    chain._sample(chain.config.sampler, checkpoint, shares.append)
    assert shares == pytest.approx([1 / 3, 2 / 3, 1])


def test_export_restore_and_model_have_the_weights_of_the_sampler(trained, dataset: Dataset, tmp_path: Path) -> None:
    store, trial = trained[0], config(KEPT, ema_std=0.1, at_step=4)
    run, averaged = FinishedTrial("x", trial, dataset), network(trained[0], dataset, 4, 1)
    export(run, store, tmp_path / "exported")
    assert "the average of length 0.1 after 4 steps" in (tmp_path / "exported" / "README.md").read_text()
    checkpoints = find_checkpoints(run, store, find_restorer(run, store))
    write_model(tmp_path / "model", checkpoints, trial, dataset.image_shape)
    exported = load_file(tmp_path / "exported" / "diffusion_pytorch_model.safetensors")
    logged = load_file(tmp_path / "model" / "data" / "ema.safetensors")
    for name, weight in averaged.state_dict().items():
        torch.testing.assert_close(exported[name.removeprefix("net.")], weight, rtol=0, atol=1e-6)
        torch.testing.assert_close(logged[name], weight, rtol=0, atol=1e-6)
    pictures = dataset.split("validation").images[:2]
    restored = Restoration(run, store).run_on(pictures, progress=False)
    d = Chain(trial, dataset, store).degradation
    expected = to_uint8(sample(averaged, d, d(to_float(pictures), 3), {"algorithm": "tacos"}))
    assert restored.sampled is not None
    assert (restored.sampled.int() - expected.int()).abs().max() <= 1


def test_export_of_a_guided_sampler_lists_no_values(trained, dataset: Dataset, tmp_path: Path) -> None:
    run = FinishedTrial("x", config(KEPT, guidance=2, guidance_step=2), dataset)
    assert "guided by an earlier step" in export(run, trained[0], tmp_path / "exported")


def test_restoration_without_the_step_of_its_sampler_names_it(dataset: Dataset, tmp_path: Path) -> None:
    trial, store = config({"snapshot_every": 2}, at_step=2), Store(tmp_path)
    chain = Chain(trial, dataset, store)
    chain.train(train, lambda *_: None)
    store.remove("train", f"{chain.train_key()}/{2:08d}")
    with pytest.raises(ValueError, match=r"x: its sampler needs step 2 of the training, which is not in"):
        Restoration(FinishedTrial("x", trial, dataset), store)


def test_sample_key_of_a_step_is_that_of_a_shorter_training(dataset: Dataset) -> None:
    def key(trial: TrialConfig) -> str:
        return sample_key(trial, dataset, trial.sampler)

    plain = key(config())
    assert key(config({"snapshot_every": 3})) == plain, "what is kept changes no images"
    assert key(config(at_step=6)) == plain
    assert key(config({"snapshot_every": 3}, at_step=3)) == key(config({"steps": 3}))
    others = [
        config({"snapshot_every": 2}, guidance=2, guidance_step=2),
        config({"snapshot_every": 2}, guidance=3, guidance_step=2),
        config({"snapshot_every": 2}, guidance=2, guidance_step=4),
        config(KEPT, ema_std=0.07),
        config(KEPT, ema_std=0.08),
        config(KEPT | {"snapshot_every": 3}, ema_std=0.08),
    ]
    assert len({plain, *map(key, others)}) == 7
    assert train_key(config({"snapshot_every": 2}, at_step=4), dataset) == train_key(config(), dataset)


def test_trials_at_rungs_have_the_trainings_own_average() -> None:
    trial = config(KEPT, rungs=(1, 5), at_step=4, ema_std=0.07, guidance=2, guidance_step=2, num_steps=2)
    samplers = [shorter.sampler for shorter in trials_at_rungs(trial, IMAGES)]
    assert samplers == [SamplerConfig(num_steps=2)] * 2


@pytest.mark.parametrize(
    ("trial", "message"),
    [
        (config(at_step=7), r"sampler.at_step = 7: at most training.steps = 6"),
        (config(at_step=3), r"sampler.at_step = 3: the training does not keep this step. It keeps 6 \(training.snap"),
        (config({"snapshot_every": 2}, (1,), at_step=5), r"at_step = 5: .* keeps 1, 2, 4, 6 \(training.snapshot_every"),
        (config({"snapshot_every": 1, "steps": 201}), r"snapshot_every = 1: keeps 201 checkpoints, at most 200"),
        (config({"snapshot_every": 2}, guidance=2, guidance_step=3), r"guidance_step = 3: the training does not keep"),
        (config({"snapshot_every": 2}, guidance=2, guidance_step=8), r"guidance_step = 8: at most training.steps = 6"),
        (config(guidance=2, guidance_step=6), r"guidance_step = 6: must be below the step 6"),
        (config({"snapshot_every": 2}, ema_std=0.1), r"ema_std = 0.1: needs training.ema_stds"),
        (config({"ema_stds": STDS}, ema_std=0.2), r"ema_std = 0.2: .*% of this average would lie at wrong steps"),
    ],
)
def test_check_weights_that_no_training_keeps_are_refused(trial: TrialConfig, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        trial.check((1, 16, 16))


def test_check_steps_of_rungs_and_the_last_step_are_kept() -> None:
    config({}, (2,), at_step=2).check((1, 16, 16))
    config({}, (2,), guidance=2, guidance_step=2).check((1, 16, 16))
    config({"ema_stds": STDS}, ema_std=0.1).check((1, 16, 16))


@pytest.mark.parametrize(
    ("sampler", "message"),
    [
        ({"guidance": 2}, r"guidance = 2.0, guidance_step = None: must be given together"),
        ({"guidance_step": 2}, r"guidance = None, guidance_step = 2: must be given together"),
        ({"guidance": 2, "guidance_step": 4, "at_step": 4}, r"guidance_step = 4: must be below at_step = 4"),
        ({"ema_std": 0.3}, r"sampler.ema_std = 0.3: input should be less than 0.288"),
        ({"at_step": 0}, r"sampler.at_step = 0: input should be greater than or equal to 1"),
    ],
)
def test_sampler_weights_wrong_settings_name_the_key(sampler: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**sampler)

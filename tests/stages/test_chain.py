"""The chain of stages: which stages are found or computed, and that both lead to the same metrics."""

from __future__ import annotations

import hashlib
import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from coldtune import presets
from coldtune.config import plain
from coldtune.data import Dataset, prepared, to_float, to_uint8
from coldtune.diffusion import build_degradation, sample
from coldtune.metrics import (
    DISTANCES,
    Distance,
    Judgement,
    Reference,
    compare,
    difference,
    extract_features,
    frechet_distance,
    rmse,
    ssim,
)
from coldtune.metrics.descriptors import FeatureSets
from coldtune.stages.chain import Chain, Outcome, found_only
from coldtune.stages.compute import Compute
from coldtune.stages.keys import sample_key, train_key
from coldtune.stages.reuse import Reuse
from coldtune.stages.trial import TrialConfig, parse_trial
from coldtune.store.checkpoints import StoreCheckpoints
from coldtune.store.store import Store
from coldtune.training.loop import load_restorer, train


@pytest.fixture(scope="module")
def dataset(digits_home: Path) -> Dataset:
    return Dataset.open(prepared(digits_home, "digits")[0])


def config(**changes) -> TrialConfig:
    tree = presets.load("digits-quick")
    tree["training"] |= {"steps": 6, "batch_size": 16, "checkpoint_every": 3, "validate_every": 0, "report_every": 3}
    tree["degradation"]["steps"] = 4
    tree["protocol"] |= {"num_images": 260, "reference": "same"}
    for path, value in changes.items():
        section, key = path.split("__")
        tree[section][key] = value
    return parse_trial(tree)


def run(config: TrialConfig, dataset: Dataset, store: Store) -> tuple[Outcome, dict[str, bool]]:
    outcome = Chain(config, dataset, store).run(train, lambda *_: None)
    return outcome, {record.stage: record.found for record in outcome.stages}


@pytest.fixture(scope="module")
def first(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Outcome, dict[str, bool]]:
    store = Store(tmp_path_factory.mktemp("store"))
    return store, *run(config(), dataset, store)


@pytest.fixture
def store(first: tuple[Store, Outcome, dict[str, bool]], tmp_path: Path) -> Store:
    """Return a copy of the store that holds the stages of the first trial."""
    shutil.copytree(first[0].root, tmp_path / "store")
    return Store(tmp_path / "store")


def test_chain_in_empty_store_computes_every_stage(first) -> None:
    _, outcome, found = first
    assert not any(found.values())
    assert {"train", "sample", "sample_direct", "sample_naive", "measure", "measure_degraded"} <= set(found)
    assert {"fid", "fid_direct", "fid_naive", "fid_degraded", "ssim", "rmse", "psnr", "nfe"} <= set(outcome.metrics)
    assert outcome.metrics["nfe"] == 4


def test_chain_same_trial_again_finds_every_stage_and_equal_metrics(first, dataset: Dataset, store: Store) -> None:
    outcome, found = run(config(), dataset, store)
    assert all(found.values())
    assert outcome.metrics == first[1].metrics


def test_chain_judge_draws_changes_only_the_draws(dataset: Dataset, store: Store) -> None:
    """The noise of x_T differs between protocol seeds. The network, the images and the first values do not."""
    noisy = {
        **plain(config(protocol__num_images=None, protocol__draws=2)),
        "prior": {"kind": "data", "noise_scale": 1.0},
    }
    chain = Chain(parse_trial(noisy), dataset, store)
    checkpoint = chain.train(found_only, lambda *_: None)
    first = Judgement.load(chain.measure("sampled", chain.sample("sampled", chain.config.sampler, checkpoint)))
    outcome = chain.judge_draws(Outcome({"sampled": first}, chain.nfe, chain.protocol, (), checkpoint=checkpoint))
    assert list(outcome.draws) == [1]
    again = outcome.draws[1]
    assert first.values["rmse"].value != again.values["rmse"].value
    assert difference(first.protocol, again.protocol) == {"seed": (0, 1)}
    assert torch.equal(first.protocol.image_indices(), again.protocol.image_indices())
    assert [record.stage for record in outcome.stages][-2:] == ["sample_seed_1", "measure_seed_1"]
    other = Chain(parse_trial({**noisy, "protocol": {**noisy["protocol"], "seed": 1, "draws": 1}}), dataset, store)
    assert other.is_measured(other.sample_key(other.config.sampler)), "a study with that protocol seed finds the values"


def test_chain_other_reporting_intervals_find_every_stage(dataset: Dataset, store: Store) -> None:
    _, found = run(config(training__report_every=1, training__checkpoint_every=2), dataset, store)
    assert all(found.values())


def test_chain_other_sampler_shares_the_restorer(first, dataset: Dataset, store: Store) -> None:
    outcome, found = run(config(sampler__num_steps=2), dataset, store)
    assert found["train"]
    assert found["sample_direct"]
    assert found["measure_degraded"]
    assert not found["sample"]
    assert not found["measure"]
    assert outcome.metrics["nfe"] == 2
    assert outcome.metrics["fid_direct"] == first[1].metrics["fid_direct"]


def test_chain_own_sampler_equal_to_a_baseline_is_found(first, dataset: Dataset, store: Store) -> None:
    outcome, found = run(config(sampler__algorithm="naive"), dataset, store)
    assert found["sample"]
    assert outcome.metrics["fid"] == first[1].metrics["fid_naive"]


def test_chain_longer_training_continues_the_shorter(dataset: Dataset, store: Store, tmp_path: Path) -> None:
    starts = []

    def watched(task, checkpoints, report):
        starts.append(checkpoints.latest(task.training.steps)[0])
        return train(task, checkpoints, report)

    longer = config(training__steps=9)
    outcome = Chain(longer, dataset, store).run(watched, lambda *_: None)
    assert starts == [6]
    curve = []
    Chain(longer, dataset, store).run(watched, lambda *_: None, replay=lambda step, past: curve.append((step, past)))
    assert [step for step, _ in curve] == [3, 6, 9], "a found training replays its whole curve"
    assert all(past["loss"] > 0 for _, past in curve)
    unbroken, _ = run(longer, dataset, Store(tmp_path / "fresh"))
    assert outcome.metrics == unbroken.metrics
    _, found = run(config(), dataset, store)
    assert all(found.values()), "the shorter training's results stay"


@pytest.mark.parametrize(
    "changes",
    [{"training__lr": 2e-3}, {"training__seed": 1}, {"degradation__kernel_size": 5}, {"data__flip": True},
     {"training__ema_decay": 0.9}],
)  # fmt: skip
def test_train_key_depends_on_the_trajectory(dataset: Dataset, changes) -> None:
    assert train_key(config(**changes), dataset) != train_key(config(), dataset)


def test_keys_are_sha256_of_canonical_json(dataset: Dataset) -> None:
    """The text of each key, written out: sorted, without spaces, with every default.

    If this test fails, for example because of a new configuration key, no existing home finds its stages any more.
    """
    trial, pixels = config(), dataset.fingerprint
    blur = (
        '{"collapse_final":false,"kernel_size":7,"kind":"blur","padding":"circular","quantize":false,'
        '"sigma":{"rate":0.05,"schedule":"exponential","start":0.5},"steps":4}'
    )
    training = (
        '{"accumulate":1,"batch_size":16,"clip_norm":null,"dtype":"float32","ema_decay":0.995,"ema_every":1,'
        '"ema_warmup":true,"loss":"l1","lr":0.001,"seed":0}'
    )
    train = sha256(
        f'{{"augmentation":{{"crop_pad":0,"flip":false}},"degradation":{blur},"pixels":"{pixels}",'
        f'"restorer":{{"index":"t","size":"micro"}},"stage":"train","training":{training},"version":1}}'
    )
    assert train_key(trial, dataset) == train
    sampler = (
        '{"algorithm":"tacos","clamp":false,"draw":"fixed","eta":0.0,"num_steps":null,"off_by_one":false,'
        '"returns":"x0"}'
    )
    sample = sha256(
        f'{{"checkpoint":["{train}",6],"degradation":{blur},"num_images":260,"pixels":"{pixels}","sampler":{sampler},'
        '"seed":0,"split":"validation","stage":"sample","version":1}'
    )
    assert sample_key(trial, dataset, trial.sampler) == sample


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def test_keys_with_written_out_defaults_are_equal(dataset: Dataset) -> None:
    assert train_key(config(degradation__collapse_final=False), dataset) == train_key(config(), dataset)
    assert sample_key(config(), dataset, None) == sample_key(config(training__lr=0.5), dataset, None)


def test_train_key_depends_on_the_pixels(dataset: Dataset) -> None:
    other = replace(dataset, manifest=dataset.manifest.model_copy(update={"fingerprint": "0" * 64}))
    assert train_key(config(), other) != train_key(config(), dataset)


def test_chain_metrics_equal_those_of_the_parts_by_hand(first, dataset: Dataset) -> None:
    """Degrade, sample, judge with the library's parts alone: the chain only adds bookkeeping."""
    _, outcome, _ = first
    trial = config()
    chain = Chain(trial, dataset, first[0])
    d = build_degradation(trial.degradation, dataset.image_shape)
    split = dataset.split("validation").images
    clean = split[chain.protocol.image_indices()]
    restorer = load_restorer(outcome.checkpoint, trial.restorer, dataset.image_shape, d.steps)
    x0 = sample(restorer, d, d(to_float(clean), d.steps), sampler={"algorithm": "tacos"})
    made = to_uint8(x0)
    kept = load_file(outcome.images["sampled"] / "images.safetensors")["images"]
    # Batches of another size may round a borderline pixel the other way.
    assert ((made.int() - kept.int()).abs() <= 1).all()
    features = extract_features(chain.extractor, kept)
    reference = Reference.of(extract_features(chain.extractor, split))
    assert outcome.metrics["fid"] == pytest.approx(frechet_distance(reference, features), rel=1e-6)
    a, b = kept.double() / 255, clean.double() / 255
    assert outcome.metrics["rmse"] == pytest.approx(rmse(a, b), rel=1e-9)
    assert outcome.metrics["ssim"] == pytest.approx(float(ssim(a, b).mean()), rel=1e-6)


def test_chain_strip_starts_degraded_and_ends_with_the_sample(first, dataset: Dataset) -> None:
    _, outcome, _ = first
    strip = load_file(outcome.images["sampled"] / "strip.safetensors")
    steps = sorted(int(s) for s in strip)
    assert steps == [0, 1, 2, 3, 4]
    degraded = load_file(outcome.images["degraded"] / "images.safetensors")["images"]
    sampled = load_file(outcome.images["sampled"] / "images.safetensors")["images"]
    assert torch.equal(strip["000004"], degraded[:8])
    assert torch.equal(strip["000000"], sampled[:8])


def test_chain_damaged_stage_is_recomputed_to_equal_metrics(first, dataset: Dataset, store: Store) -> None:
    outcome, _ = run(config(), dataset, store)
    (outcome.images["sampled"] / "images.safetensors").write_bytes(b"torn")
    with pytest.warns(UserWarning, match="is damaged"):
        again, found = run(config(), dataset, store)
    assert not found["sample"]
    assert again.metrics == first[1].metrics


def _shift(sets: FeatureSets) -> tuple[float, torch.Tensor]:
    """Compute a distance that no version of coldtune has: that of the means in the first dimension."""
    first = sets.features[:, 0]
    shift = first.mean() - sets.reference.mean[0]
    return float(shift.abs()), shift.sign() * (first - first.mean())


@pytest.fixture
def shift(monkeypatch: pytest.MonkeyPatch) -> list[FeatureSets]:
    """Register the distance `shift`, and return the sets that it measures."""
    measured: list[FeatureSets] = []
    estimate = lambda sets: (measured.append(sets), _shift(sets))[1]  # noqa: E731
    distance = Distance(value=lambda sets: _shift(sets)[0], estimate=estimate, needs_reference_features=False)
    monkeypatch.setitem(DISTANCES, "shift", distance)
    return measured


def test_chain_metric_added_later_is_measured_on_the_images_that_are_there(
    first, dataset: Dataset, store: Store, shift: list[FeatureSets], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = Judgement.load(first[1].measured["sampled"])
    assert before.missing() == ["shift"]
    estimated: list[str] = []
    for name in DISTANCES:
        watched = replace(
            DISTANCES[name],
            estimate=lambda sets, name=name, of=DISTANCES[name]: (estimated.append(name), of.estimate(sets))[1],
        )
        monkeypatch.setitem(DISTANCES, name, watched)
    outcome, found = run(config(), dataset, store)
    assert all(found.values()), "neither trained nor sampled again"
    assert set(estimated) == {"shift"}, "only the missing distance is measured"
    assert len(shift) == 4
    features = extract_features(
        Chain(config(), dataset, store).extractor,
        load_file(outcome.images["sampled"] / "images.safetensors")["images"],
    )
    assert outcome.metrics["shift"] == pytest.approx(_shift(shift[-1])[0])
    assert torch.equal(shift[-1].features, features)
    assert {name: outcome.metrics[name] for name in first[1].metrics} == first[1].metrics
    after = Judgement.load(outcome.measured["sampled"])
    assert after.missing() == []
    assert compare(after, Judgement.load(outcome.measured["direct"]), "shift").metric == "shift"
    again, _ = run(config(), dataset, store)
    assert (again.metrics, len(shift)) == (outcome.metrics, 4), "the completed values are found"


def test_chain_metric_added_later_leaves_the_entry_to_other_versions(
    first, dataset: Dataset, store: Store, shift: list[FeatureSets]
) -> None:
    kept = store.root / "measure" / first[1].measured["sampled"].name / "metrics.json"
    before = kept.read_bytes()
    outcome, _ = run(config(), dataset, store)
    assert kept.read_bytes() == before
    assert outcome.measured["sampled"].name != first[1].measured["sampled"].name
    keys = {record.stage: record.key for record in outcome.stages}
    assert keys == {record.stage: record.key for record in first[1].stages}, "the trial is known by the same stages"


def test_chain_judgement_of_a_fixed_reference_is_completed(
    first, dataset: Dataset, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Earlier versions stored no influences of the reference, so their intervals took it as fixed."""
    load = Judgement.load.__func__

    def old(cls: type[Judgement], directory: Path) -> Judgement:
        judgement = load(cls, directory)
        is_first = directory.name == first[1].measured["sampled"].name
        return replace(judgement, reference_influences={}) if is_first else judgement

    monkeypatch.setattr(Judgement, "load", classmethod(old))
    outcome, found = run(config(), dataset, store)
    assert all(found.values())
    completed = outcome.judgements["sampled"]
    assert set(completed.reference_influences) == set(DISTANCES)
    original = first[1].judgements["sampled"].values
    assert {name: value.value for name, value in completed.values.items()} == {
        name: value.value for name, value in original.items()
    }


@pytest.mark.parametrize("reference", ["other", "train"])
def test_chain_independent_reference_measures_the_same_images_or_half_of_them(
    first, dataset: Dataset, store: Store, reference: str
) -> None:
    images = None if reference == "other" else 260
    outcome, found = run(config(protocol__reference=reference, protocol__num_images=images), dataset, store)
    assert found["train"]
    assert found["sample"] == (reference == "train"), "the training split needs no other images"
    assert not found["measure"]
    assert outcome.protocol.num_images == (260 if reference == "train" else 182)
    made = load_file(outcome.images["sampled"] / "images.safetensors")["images"]
    features = extract_features(Chain(config(), dataset, store).extractor, made)
    split = dataset.split("train" if reference == "train" else "validation").images
    reference_images = split if reference == "train" else split[182:]
    moments = Reference.of(extract_features(Chain(config(), dataset, store).extractor, reference_images))
    assert outcome.metrics["fid"] == pytest.approx(frechet_distance(moments, features), rel=1e-6)
    clean = dataset.split("validation").images[outcome.protocol.image_indices()]
    assert outcome.metrics["rmse"] == pytest.approx(rmse(made.double() / 255, clean.double() / 255), rel=1e-9)


def generating(**prior) -> TrialConfig:
    trial = config(degradation__collapse_final=True, protocol__num_images=400)
    return TrialConfig.model_validate({**plain(trial), "prior": {"kind": "gmm", **prior}})


@pytest.fixture(scope="module")
def generated(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Outcome]:
    store = Store(tmp_path_factory.mktemp("generated"))
    return store, run(generating(noise_scale=0.0), dataset, store)[0]


def test_chain_generation_starts_from_the_prior(dataset: Dataset, generated: tuple[Store, Outcome]) -> None:
    _, outcome = generated
    images = {name: load_file(path / "images.safetensors")["images"] for name, path in outcome.images.items()}
    x_T = images["degraded"]
    assert len(x_T) == 400 > dataset.sizes["validation"]
    assert torch.equal(x_T, x_T[:, :, :1, :1].expand_as(x_T)), "the images are flat, so the symmetry is unbroken"
    # The mean colours follow the fitted Gaussian: mean and standard deviation within 4 standard errors.
    means = to_float(dataset.split("train").images).mean(dim=(1, 2, 3))
    drawn = to_float(x_T)[:, 0, 0, 0]
    assert float((drawn.mean() - means.mean()).abs()) < 4 * float(means.std()) / 20
    assert float(drawn.std() / means.std() - 1) == pytest.approx(0, abs=4 / 800**0.5)
    assert not {"ssim", "rmse", "psnr"} & set(outcome.metrics)
    assert {"fid", "fid_low", "fid_high", "kid", "mind", "precision", "recall"} <= set(outcome.metrics)
    assert outcome.protocol.task == "generated"


def test_chain_other_prior_noise_shares_the_fit(dataset: Dataset, generated: tuple[Store, Outcome]) -> None:
    store, _ = generated
    fits = list((store.root / "prior").iterdir())
    outcome, found = run(generating(noise_scale=0.3), dataset, store)
    assert found["train"]
    assert not found["sample"]
    assert list((store.root / "prior").iterdir()) == fits
    x_T = load_file(outcome.images["degraded"] / "images.safetensors")["images"]
    # The noise is 0.3 per pixel around the colour of each image, unless an end of [-1, 1] clips it.
    assert float(to_float(x_T).std(dim=(1, 2, 3)).median()) == pytest.approx(0.3, rel=0.05)


def test_sample_key_data_prior_without_noise_equals_no_prior(dataset: Dataset, first) -> None:
    named = TrialConfig.model_validate({**plain(config()), "prior": {"kind": "data"}})
    assert sample_key(named, dataset, None) == sample_key(config(), dataset, None)
    noisy = TrialConfig.model_validate({**plain(config()), "prior": {"kind": "data", "noise_scale": 0.1}})
    assert sample_key(noisy, dataset, None) != sample_key(config(), dataset, None)


def test_chain_judgements_have_intervals_and_can_be_compared(first) -> None:
    _, outcome, _ = first
    for judgement in outcome.judgements.values():
        assert {value.n for value in judgement.values.values()} == {260}
        for metric in ("fid", "kid", "mind", "ssim", "rmse"):
            value = judgement.values[metric]
            assert value.low <= value.value <= value.high
    sentence = str(
        compare(outcome.judgements["direct"], outcome.judgements["degraded"], "rmse", ("direct", "degraded"))
    )
    assert "N = 260, same draws" in sentence


def test_found_only_without_restorer_raises(dataset: Dataset, store: Store) -> None:
    outcome = Chain(config(sampler__num_steps=2), dataset, store).run(found_only, lambda *_: None)
    assert outcome.nfe == 2
    with pytest.raises(ValueError, match=r"training\.steps = 8: no restorer .* there is one at step 6"):
        Chain(config(training__steps=8), dataset, store).run(found_only, lambda *_: None)


def climbing(**changes) -> TrialConfig:
    return TrialConfig.model_validate({**plain(config(**changes)), "rungs": {"steps": [2, 5], "num_images": 64}})


def test_chain_rung_equals_a_shorter_trial_on_few_images(first, dataset: Dataset, tmp_path: Path) -> None:
    reached, curve, past = [], [], []
    chain = Chain(climbing(), dataset, Store(tmp_path / "store"))
    outcome = chain.run(
        train, lambda step, _: curve.append(step), replay=lambda step, _: past.append(step),
        on_rung=lambda step, judgement: reached.append((step, judgement.values["kid"])),
    )  # fmt: skip
    assert outcome.metrics == first[1].metrics, "rungs do not change the result at the end"
    assert [step for step, _ in reached] == [2, 5]
    assert not past
    assert sorted(set(curve)) == curve, "no step is reported twice"
    shorter, _ = run(config(training__steps=5, protocol__num_images=64), dataset, Store(tmp_path / "other"))
    assert reached[1][1].value == shorter.metrics["kid"]
    assert reached[1][1].n == 64
    trained = {r.stage: r for r in outcome.stages if r.stage.startswith("train")}
    assert list(trained) == ["train_2", "train_5", "train"]
    assert [record.earlier for record in trained.values()] == [0, 0, 0], "no second is counted twice"
    again = Chain(climbing(), dataset, chain.store).run(found_only, lambda *_: None, replay=lambda s, _: past.append(s))
    assert again.metrics == outcome.metrics
    assert past == sorted(set(past)), "a found training is replayed once"
    assert set(past) == set(curve)
    whole = StoreCheckpoints(chain.store.root, chain.train_key(), final=6).seconds(6)
    assert sum(r.seconds for r in again.stages if r.stage.startswith("train")) == pytest.approx(whole)


def test_chain_exception_at_a_rung_ends_the_trial(dataset: Dataset, tmp_path: Path) -> None:
    class StoppedError(Exception):
        pass

    def stop(step: int, _: object) -> None:
        raise StoppedError(str(step))

    store = Store(tmp_path / "store")
    with pytest.raises(StoppedError, match="2"):
        Chain(climbing(), dataset, store).run(train, lambda *_: None, on_rung=stop)
    steps = [path.name for path in (store.root / "train").glob("*/*")]
    assert steps == ["00000002"], "the training stopped at the rung, and can be continued from there"


@pytest.mark.parametrize("steps", [[2, 6], [0, 2], [3, 2], [2, 2]])
def test_rungs_outside_the_training_are_refused(dataset: Dataset, steps: list[int]) -> None:
    tree = {**plain(config()), "rungs": {"steps": steps}}
    with pytest.raises(ValueError, match=r"rungs\.steps = .*(below training\.steps = 6|ascending)"):
        parse_trial(tree).check(dataset.image_shape)


def test_chain_with_source_draws_from_its_images(dataset: Dataset, tmp_path: Path) -> None:
    """Animorph draws from the source's training images, in training and in sampling. The source is part of its keys."""
    animorph = {"kind": "animorph", "steps": 4, "schedule": "cosine", "source": "digits"}
    trial = TrialConfig.model_validate({**plain(config()), "degradation": animorph, "prior": {"kind": "dataset"}})
    store = Store(tmp_path / "store")
    outcome = Chain(trial, dataset, store, source=dataset).run(train, lambda *_: None)
    x_T = load_file(outcome.images["degraded"] / "images.safetensors")["images"]
    known = {image.numpy().tobytes() for image in dataset.split("train").images}
    assert all(image.numpy().tobytes() in known for image in x_T), "x_T is an image of the source"
    assert outcome.metrics["fid"] >= 0
    other = replace(dataset, manifest=dataset.manifest.model_copy(update={"fingerprint": "0" * 64}))
    for key in (train_key, lambda c, d, s: sample_key(c, d, None, s)):
        assert key(trial, dataset, dataset) != key(trial, dataset, other)
    with pytest.raises(ValueError, match=r"degradation\.source = 'digits': the images handed in are those of nothing"):
        Chain(trial, dataset, store)
    with pytest.raises(ValueError, match=r"degradation\.source = None: the images handed in are those of digits"):
        Chain(config(), dataset, store, source=dataset)


def test_chain_concurrent_trials_train_once(dataset: Dataset, tmp_path: Path) -> None:
    """The second trial starts while the first trains. It waits for the checkpoint, and both have equal metrics."""
    trainings, outcomes = [], {}
    reached = threading.Event()

    def watched(task, checkpoints, report):
        trainings.append(task.training.steps)
        reached.set()
        time.sleep(0.5)
        return train(task, checkpoints, report)

    def trial(name: str, **changes) -> None:
        store = Store(tmp_path / "store", by=f"study/{name}", on_wait=lambda _: None)
        outcomes[name] = Chain(config(**changes), dataset, store).run(watched, lambda *_: None)

    first = threading.Thread(target=trial, args=("0",))
    first.start()
    assert reached.wait(300)
    second = threading.Thread(target=trial, args=("1",), kwargs={"sampler__num_steps": 2})
    second.start()
    first.join(300)
    second.join(300)
    assert trainings == [6]
    assert outcomes["1"].metrics["fid_direct"] == outcomes["0"].metrics["fid_direct"]
    found = {record.stage: record.found for record in outcomes["1"].stages}
    assert found["train"]
    store = Store(tmp_path / "store")
    key = train_key(config(), dataset, compute=Compute.here("cpu"))
    assert sorted(store.users("train", f"{key}/{6:08d}")) == ["study/0", "study/1"]


def test_chain_records_name_the_maker_of_found_stages(dataset: Dataset, tmp_path: Path) -> None:
    first = Chain(config(), dataset, Store(tmp_path, by="study/0")).run(train, lambda *_: None)
    assert {record.by for record in first.stages if record.stage == "train"} == {None}, "the store was empty"
    longer = config(training__steps=9, sampler__num_steps=2)
    second = Chain(longer, dataset, Store(tmp_path, by="study/1")).run(train, lambda *_: None)
    by = {record.stage: (record.found, record.by) for record in second.stages}
    assert by["train"] == (False, "study/0"), "it continued from the checkpoint of the other trial"
    assert by["measure_degraded"] == (True, "study/0")
    assert by["sample"] == (False, "study/1")
    parts = Reuse.of(second.stages)
    (trained,) = [record for record in second.stages if record.stage == "train"]
    assert parts.saved == pytest.approx(trained.earlier + sum(r.seconds for r in second.stages if r.found))
    assert trained.earlier > 0


def test_chain_sampling_out_of_memory_continues_with_smaller_batches(
    first, dataset: Dataset, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain = Chain(config(), dataset, store)
    whole, strip = chain._sample(chain.config.sampler, first[1].checkpoint, lambda _: None)
    sizes: list[int] = []

    def tight(*args, **kwargs):
        restorer = load_restorer(*args, **kwargs)

        def restore(x, t):
            sizes.append(len(x))
            if len(x) > 70 and len(sizes) > 2:  # in the middle of the first batch
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return restorer(x, t)

        return restore

    monkeypatch.setattr("coldtune.stages.chain.load_restorer", tight)
    monkeypatch.setattr("coldtune.stages.weights._last", None)  # the restorer that was loaded before stays in memory
    shares: list[float] = []
    with pytest.warns(UserWarning, match="sampling: out of memory with .* images at a time"):
        parts, again = chain._sample(chain.config.sampler, first[1].checkpoint, shares.append)
    assert set(sizes) == {256, 128, 64, 260 % 64}
    assert (parts.int() - whole.int()).abs().max() <= 1, "equal seeds, but other roundings of sums"
    assert strip.keys() == again.keys()
    assert shares[-1] == 1.0
    assert max(shares) == 1.0, "a batch that was started twice counts once"


def unknown_home(dataset: Dataset, store: Store, monkeypatch: pytest.MonkeyPatch, trial: TrialConfig) -> Outcome:
    """Fill `store` as versions before the record of threads did, and return the outcome."""
    with monkeypatch.context() as patch:
        patch.setattr(Compute, "here", lambda *_: None)
        return Chain(trial, dataset, store).run(train, lambda *_: None)


def test_chain_work_of_unknown_threads_is_found_only_on_request(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "store")
    unknown_home(dataset, store, monkeypatch, config())
    resumed = Chain(config(), dataset, store, found=(None,)).run(found_only, lambda *_: None)
    assert all(record.found for record in resumed.stages)
    new = Chain(config(), dataset, store).run(train, lambda *_: None)
    assert not any(record.found for record in new.stages)
    again = Chain(config(), dataset, store, found=(None,)).run(found_only, lambda *_: None)
    assert again.checkpoint == new.checkpoint, "known work comes before unknown work"


def test_chain_begun_training_of_unknown_threads_goes_on(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "store")
    unknown_home(dataset, store, monkeypatch, config(training__steps=3))
    starts: list[int] = []

    def watched(task, checkpoints, report):
        starts.append(checkpoints.latest(6)[0])
        return train(task, checkpoints, report)

    chain = Chain(config(), dataset, store, found=(None,))
    outcome = chain.run(watched, lambda *_: None)
    assert starts == [3]
    assert outcome.checkpoint.parent.name == train_key(config(), dataset), "its first steps ran on unknown threads"
    trained = train_key(config(), dataset)
    sampled = sample_key(config(), dataset, config().sampler, compute=Compute.here("cpu"), trained=trained)
    assert outcome.images["sampled"].name == sampled

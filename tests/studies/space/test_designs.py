"""Designs as spaces write them: their arms as variants, skipped and merged arms, and the shipped ablations."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from coldtune import presets
from coldtune.cli.run import find_space, shipped_spaces
from coldtune.config import parse, plain
from coldtune.diffusion import leftover_of
from coldtune.studies.designs.describe import describe_design
from coldtune.studies.designs.effects import effects_of_design
from coldtune.studies.search.sampler import listed_points
from coldtune.studies.space.space import Space
from coldtune.studies.space.validate import build_space
from coldtune.studies.spec.build import build_spec
from coldtune.studies.spec.study import StudySpec

ROOT = Path(__file__).resolve().parents[3]
ABLATIONS = ROOT / "search_spaces" / "ablations"


def build(folder: Path, text: str, **more: object) -> tuple[StudySpec, Space]:
    (folder / "space.yaml").write_text(f"base: digits-quick\n{text}")
    spec = build_spec("design", folder / "space.yaml", **more)
    return spec, build_space(spec.space, spec.base, presets.image_shape(spec.base))


def arms(spec: StudySpec) -> dict[str, dict]:
    assert spec.design is not None
    return spec.design.arms


def test_arms_are_variants_and_the_reference_is_the_first(tmp_path):
    spec, space = build(tmp_path, "design: {kind: one_factor}\nfactors: {degradation.steps: [10, 20, 30]}\n")
    assert list(arms(spec)) == ["base", "T=10", "T=30"]
    assert set(spec.space.variants) == set(arms(spec))
    points = listed_points(space, spec.search, spec.seed)
    assert points is not None
    assert points[0] == {"variant": "base"}
    assert {space.resolve(point).degradation["steps"] for point in points} == {10, 20, 30}


def test_order_of_arms_is_random_and_follows_from_the_seed(tmp_path):
    text = "design: {kind: one_factor}\nfactors: {degradation.steps: [5, 10, 15, 20, 25, 30, 35, 40]}\n"
    orders = [list(build(tmp_path, text, seed=seed)[0].space.variants) for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
    assert {order[0] for order in orders} == {"base"}
    assert orders[0] != sorted(orders[0], key=list(arms(build(tmp_path, text)[0])).index), "not the order of the file"


def test_arm_that_cannot_reach_the_end_is_skipped_with_its_reason(tmp_path):
    spec, space = build(
        tmp_path,
        "design: {kind: factorial}\nfactors:\n  degradation.sigma.schedule: [exponential, linear]\n"
        "  degradation.sigma.rate: [0.05, 0.09]\nderive: {degradation.sigma.start: {hold: leftover, at: base}}\n",
    )
    assert spec.design is not None
    assert list(spec.design.skipped) == ["schedule=linear rate=0.09"]
    assert "out of reach" in spec.design.skipped["schedule=linear rate=0.09"]
    assert len(spec.space.variants) == 3
    held = leftover_of(spec.base["degradation"], (1, 16, 16))
    for name in spec.space.variants:
        end = leftover_of(space.resolve({"variant": name}).degradation, (1, 16, 16))
        assert end == pytest.approx(held, rel=1e-3)


def test_arm_beyond_a_constraint_is_skipped(tmp_path):
    spec, _ = build(
        tmp_path,
        "design: {kind: one_factor}\nfactors: {degradation.steps: [10, 20, 40]}\nconstrain: {nfe: {max: 20}}\n",
    )
    assert spec.design is not None
    assert list(spec.design.skipped) == ["T=40"]
    assert "constrain.nfe is at most 20" in spec.design.skipped["T=40"]


def test_combination_that_breaks_a_rule_is_skipped(tmp_path):
    spec, _ = build(
        tmp_path,
        "design: {kind: factorial}\nfactors: {degradation.steps: [5, 20], sampler.num_steps: [null, 10]}\n",
    )
    assert spec.design is not None
    assert list(spec.design.skipped) == ["T=5 num_steps=10"]
    assert "at most the degradation's steps, 5" in spec.design.skipped["T=5 num_steps=10"]


def test_key_under_when_is_left_out_of_arms_in_which_it_has_no_effect(tmp_path):
    spec, space = build(
        tmp_path,
        "design: {kind: factorial}\nfactors:\n  sampler.algorithm: [tacos, direct]\n"
        "  sampler.num_steps: {levels: [null, 10, 5], when: {sampler.algorithm: tacos}}\n",
    )
    assert spec.design is not None
    assert list(arms(spec)) == [
        "base (sampler=tacos num_steps=null)", "sampler=tacos num_steps=10", "sampler=tacos num_steps=5",
        "sampler=direct",
    ]  # fmt: skip
    assert arms(spec)["sampler=direct"] == {"sampler.algorithm": "direct"}
    assert spec.design.merged == {
        "sampler=direct num_steps=10": "sampler=direct", "sampler=direct num_steps=5": "sampler=direct"
    }  # fmt: skip
    assert space.resolve({"variant": "sampler=direct"}).sampler.num_steps is None


SET_RATE = (
    "  degradation.sigma.schedule: [exponential, {linear}constant]\n"
    "  degradation.sigma.rate: {{levels: [0.05], when: {{degradation.sigma.schedule: [{linear}exponential]}}}}\n"
    "  training.loss: [l1, l2]\n  sampler.clamp: [false, true]\n"
)


@pytest.mark.parametrize("kind", ["one_factor", "factorial", "leave_one_out", "add_one_in"])
def test_single_level_under_when_is_set_and_not_compared(tmp_path, kind):
    """`constant` has no rate. The other schedules have the one rate, and the arms are those without the key."""
    linear = "linear, " if kind in ("one_factor", "factorial") else ""
    spec, space = build(tmp_path, f"design: {{kind: {kind}}}\nfactors:\n{SET_RATE.format(linear=linear)}")
    assert spec.design is not None
    assert [factor.name for factor in spec.design.described_factors()] == ["schedule", "loss", "clamp"]
    for name in spec.space.variants:
        sigma = space.resolve({"variant": name}).degradation["sigma"]
        assert sigma.get("rate") == (None if sigma["schedule"] == "constant" else 0.05)
        assert ("degradation.sigma.rate" in arms(spec)[name]) == (sigma["schedule"] != "constant")
        assert "rate" not in name
    effects = effects_of_design(spec.design)
    assert not any("rate" in effect.name for effect in effects)
    assert not any(effect.problem for effect in effects if effect.group == "effect")
    where = "linear or exponential" if linear else "exponential"
    assert ("sets", f"rate=0.05 if schedule is {where}") in list(describe_design(spec))


def test_single_level_under_when_goes_with_a_fractional_design(tmp_path):
    spec, space = build(
        tmp_path, f"design: {{kind: fractional, resolution: 3}}\nfactors:\n{SET_RATE.format(linear='')}"
    )
    rates = [space.resolve({"variant": name}).degradation["sigma"].get("rate") for name in spec.space.variants]
    assert len(rates) == 4
    assert rates.count(0.05) == rates.count(None) == 2


@pytest.mark.parametrize("written", ["choices: [0.05]", "low: 0.05, high: 0.05", "low: 0.05, high: 0.05, log: true"])
def test_single_value_under_when_is_set_in_a_grid(tmp_path, written):
    schedules = "[exponential, linear, constant]"
    spec, space = build(
        tmp_path,
        f"vary:\n  degradation.sigma.schedule: {{choices: {schedules}}}\n"
        f"  degradation.sigma.rate: {{{written}, when: {{degradation.sigma.schedule: [exponential, linear]}}}}\n"
        "derive: {degradation.sigma.start: {hold: leftover, at: base}}\nsearch: {algorithm: grid}\n",
    )
    points = listed_points(space, spec.search, spec.seed)
    assert points is not None
    assert sorted(points, key=str) == [
        {"schedule": "constant"}, {"schedule": "exponential", "rate": 0.05}, {"schedule": "linear", "rate": 0.05}
    ]  # fmt: skip


def test_arms_that_mean_the_same_trial_are_merged(tmp_path):
    """Every step of T = 10 is 10 steps."""
    spec, _ = build(
        tmp_path, "design: {kind: factorial}\nfactors: {degradation.steps: [20, 10], sampler.num_steps: [null, 10]}\n"
    )
    assert spec.design is not None
    assert spec.design.merged == {"T=10 num_steps=10": "T=10 num_steps=null"}
    assert len(spec.space.variants) == 3


def test_level_equal_to_the_base_is_the_base(tmp_path):
    spec, _ = build(tmp_path, "design: {kind: one_factor}\nfactors: {training.lr: [1e-3, 1e-2]}\n")
    assert list(arms(spec)) == ["base", "lr=0.01"], "a text that means a number is brought to the type of its key"


def test_one_factor_base_may_lie_beside_the_levels(tmp_path):
    spec, space = build(
        tmp_path,
        "design: {kind: one_factor}\nfactors: {degradation.steps: [10, 30]}\n",
        settings=["degradation.steps=40"],
    )
    assert list(arms(spec)) == ["base", "T=10", "T=30"]
    assert space.resolve({"variant": "base"}).degradation["steps"] == 40


def test_base_of_null_is_the_reference_although_it_is_no_level(tmp_path):
    text = "design: {kind: one_factor}\nfactors:\n  sampler.num_steps: [10, 5]\n  training.clip_norm: [1.0, 2.0]\n"
    spec, space = build(tmp_path, text)
    assert list(arms(spec)) == ["base", "num_steps=10", "num_steps=5", "clip_norm=1.0", "clip_norm=2.0"]
    base = space.resolve({"variant": "base"})
    assert (base.sampler.num_steps, base.training.clip_norm) == (None, None)
    assert spec.design is not None
    assert set(spec.design.references.values()) == {None}


def test_base_that_meets_when_is_the_reference_although_it_is_no_level(tmp_path):
    factors = (
        "factors:\n  sampler.algorithm: [tacos, direct]\n"
        "  sampler.num_steps: {levels: [10, 5], when: {sampler.algorithm: [tacos]}}\n"
    )
    spec, space = build(tmp_path, f"design: {{kind: one_factor}}\n{factors}")
    assert list(arms(spec)) == ["base", "sampler=direct", "num_steps=10", "num_steps=5"]
    assert space.resolve({"variant": "base"}) == space.resolve({}), "the base itself"
    with pytest.raises(ValueError, match=r"num_steps = \[10, 5\]: the base has null, which must be one of the levels"):
        build(tmp_path, f"design: {{kind: factorial}}\n{factors}")


@pytest.mark.parametrize(
    "rest", ["design: {kind: one_factor}\nfactors: {training.loss: [l1, l2]}", "variants: {a: {}}"]
)
def test_search_of_a_list_is_said_to_have_no_effect(tmp_path, rest):
    with pytest.warns(UserWarning, match=r"^search: has no effect, because all (arms of a design|variants) are tried"):
        build(tmp_path, f"{rest}\nsearch: {{algorithm: random}}\n")


def test_design_survives_spec_yaml_and_the_storage(tmp_path):
    spec, _ = build(
        tmp_path, "design: {kind: fractional}\nfactors:\n  training.loss: [l1, l2]\n  sampler.clamp: [false, true]\n"
        "  training.clip_norm: [null, 1.0]\n  training.ema_warmup: [true, false]\n"
    )  # fmt: skip
    spec.save(tmp_path)
    assert StudySpec.load(tmp_path) == spec
    assert parse(StudySpec, json.loads(json.dumps(plain(spec)))) == spec
    assert list(StudySpec.load(tmp_path).space.variants) == list(spec.space.variants)


def test_study_without_a_design_keeps_its_name():
    """The fields of designs are neutral, so a study of an older version is found under its name."""
    spec = build_spec("sweep_blur", ROOT / "search_spaces" / "blur.yaml")
    assert not {"design", "ablation"} & set(spec.identity())


def test_fractional_design_says_its_aliases_before_it_starts(tmp_path):
    spec, _ = build(
        tmp_path, "design: {kind: fractional}\nfactors:\n  training.loss: [l1, l2]\n  sampler.clamp: [false, true]\n"
        "  training.clip_norm: [null, 1.0]\n  training.ema_warmup: [true, false]\n"
    )  # fmt: skip
    said = list(describe_design(spec))
    assert said[0] == (
        "design",
        "fractional, 1/2 of the 16 combinations, resolution IV: 8 arms over loss, clamp, clip_norm, ema_warmup",
    )
    assert ("aliases", "the interactions loss x clamp and clip_norm x ema_warmup cannot be told apart, only their sum "
            "is known") in said  # fmt: skip


def test_fractional_design_without_some_arms_says_what_is_lost(tmp_path):
    spec, _ = build(
        tmp_path,
        "design: {kind: fractional, resolution: 3}\nfactors:\n  degradation.sigma.schedule: [exponential, linear]\n"
        "  degradation.sigma.rate: [0.05, 0.09]\n  training.loss: [l1, l2]\n  training.ema_warmup: [true, false]\n"
        "  sampler.clamp: [false, true]\nderive: {degradation.sigma.start: {hold: leftover, at: base}}\n"
    )  # fmt: skip
    said = list(describe_design(spec))
    assert ("aliases", "2 arms of the fraction are left out, so even less can be told apart") in said
    (unknown,) = (text for head, text in said if head == "unknown")
    assert spec.design is not None
    problems = [effect.name for effect in effects_of_design(spec.design) if effect.problem]
    assert problems[:2] == ["schedule=linear instead of exponential", "rate=0.09 instead of 0.05"]
    assert unknown == f"these arms cannot tell {', '.join(problems[:8])}, and {len(problems) - 8} more"


# --- the shipped ablations


def shipped(name: str) -> tuple[StudySpec, Space]:
    spec = build_spec(name, ABLATIONS / f"{name}.yaml")
    return spec, build_space(spec.space, spec.base, presets.image_shape(spec.base))


EXPECTED = {
    "algorithm": {"base", "sampler=naive", "sampler=direct"},
    "sigma-schedule": {
        "base (schedule=exponential rate=0.05)", "schedule=exponential rate=0.01", "schedule=exponential rate=0.03",
        "schedule=linear rate=0.01", "schedule=linear rate=0.03", "schedule=linear rate=0.05", "schedule=constant",
    },
    "beta-step": {"base", "beta_step=0", "beta_step=0.02", "beta_step=0.04", "beta_step=0.06"},
    "noise-scale": {
        "base", "noise_scale=0", "noise_scale=0.0001", "noise_scale=0.0003", "noise_scale=0.001", "noise_scale=0.003",
        "noise_scale=0.01",
    },
    "steps": {
        "base (T=20 num_steps=null)", "T=20 num_steps=10", "T=20 num_steps=5", "T=10 num_steps=null",
        "T=10 num_steps=5", "T=40 num_steps=null", "T=40 num_steps=10", "T=40 num_steps=5",
    },
    "loss": {"base", "loss=l2"},
    "ema": {"base", "ema_decay=0", "ema_decay=0.9", "ema_decay=0.99", "ema_decay=0.999", "ema_warmup=false"},
    "off-by-ones": {
        "base (restorer_index=t off_by_one=false returns=x0)", "restorer_index=t off_by_one=false returns=estimate",
        "restorer_index=t off_by_one=true returns=x0", "restorer_index=t off_by_one=true returns=estimate",
        "restorer_index=t-1 off_by_one=false returns=x0", "restorer_index=t-1 off_by_one=false returns=estimate",
        "restorer_index=t-1 off_by_one=true returns=x0", "restorer_index=t-1 off_by_one=true returns=estimate",
    },
    "average-length": {
        "base", "ema_std=0.02", "ema_std=0.03", "ema_std=0.05", "ema_std=0.075", "ema_std=0.1", "ema_std=0.15",
        "ema_std=0.2", "ema_std=0.25",
    },
    "guidance": {"base", "guidance=1.25", "guidance=1.5", "guidance=2", "guidance=3"},
    "sampler-schedule": {
        "base (num_steps=null)",
        *(f"num_steps={n} sampler_schedule={name}" for n in (10, 5, 3) for name in ("uniform", "cosine", "rho")),
    },
}  # fmt: skip
TRAININGS = {
    "algorithm": 1, "sigma-schedule": 7, "beta-step": 5, "noise-scale": 1, "steps": 3, "loss": 2, "ema": 6,
    "off-by-ones": 2, "average-length": 1, "guidance": 1, "sampler-schedule": 1,
}  # fmt: skip


def test_every_shipped_ablation_is_expected_here():
    assert {path.stem for path in ABLATIONS.glob("*.yaml")} == set(EXPECTED) == set(TRAININGS)


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_shipped_ablation_has_the_expected_arms_and_trainings(name):
    spec, space = shipped(name)
    assert set(spec.space.variants) == EXPECTED[name]
    assert spec.design is not None
    assert not spec.design.skipped
    assert spec.replicates == 5
    trials = [space.resolve({"variant": arm}) for arm in spec.space.variants]
    trained = {
        json.dumps([plain(t.degradation), plain(t.restorer), plain(t.training), plain(t.data)], sort_keys=True)
        for t in trials
    }
    assert len(trained) == TRAININGS[name]
    assert len({json.dumps(plain(trial), sort_keys=True) for trial in trials}) == len(trials)


@pytest.mark.parametrize("name", ["sigma-schedule", "beta-step", "steps"])
def test_shipped_ablation_arms_end_equally_hard(name):
    spec, space = shipped(name)
    ends = [leftover_of(space.resolve({"variant": arm}).degradation, (1, 16, 16)) for arm in spec.space.variants]
    assert max(ends) == pytest.approx(min(ends), rel=1e-3)


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_shipped_ablation_builds_for_mnist(name):
    spec = build_spec(name, ABLATIONS / f"{name}.yaml", dataset="mnist")
    build_space(spec.space, spec.base, presets.image_shape(spec.base))
    assert spec.base["restorer"]["size"] == "micro"
    assert spec.base["protocol"]["extractor"] == "mnist"
    assert set(spec.space.variants) == EXPECTED[name]


@pytest.mark.parametrize("job", sorted(path.stem for path in (ROOT / "jobs").glob("ablate_*.py")))
def test_shipped_job_at_32_px_loses_no_arm(job, recwarn):
    """The settings for MNIST at 32 px, as the docstring of the job lists them, keep the end and all arms."""
    text = (ROOT / "jobs" / f"{job}.py").read_text()
    settings = text.partition("--set ")[2].partition("\n")[0].split()
    name = text.partition('"ablations" / "')[2].partition(".yaml")[0]
    spec = build_spec(job, ABLATIONS / f"{name}.yaml", dataset="mnist", settings=settings)
    build_space(spec.space, spec.base, presets.image_shape(spec.base))
    assert settings[0] == "data.image_size=32"
    assert len(spec.space.variants) == len(EXPECTED[name])
    assert not recwarn.list


def test_every_shipped_ablation_has_a_job():
    named = {
        path.read_text().partition('"ablations" / "')[2].partition(".yaml")[0]
        for path in (ROOT / "jobs").glob("ablate_*")
    }
    assert named == set(EXPECTED)


def test_shipped_spaces_are_found_by_name_also_beside_a_folder_of_that_name(tmp_path, monkeypatch):
    found = shipped_spaces()
    assert {f"ablations/{name}" for name in EXPECTED} < set(found)
    assert find_space("ablations/loss") == found["ablations/loss"] == ABLATIONS / "loss.yaml"
    (tmp_path / "training").mkdir()
    monkeypatch.chdir(tmp_path)
    assert find_space("training") == found["training"]
    assert "blur" in found


def test_factors_may_be_written_in_blocks_too(tmp_path):
    text = yaml.safe_dump({"design": {"kind": "one_factor"}, "factors": {"training.loss": {"levels": ["l1", "l2"]}}})
    assert list(arms(build(tmp_path, text)[0])) == ["base", "loss=l2"]

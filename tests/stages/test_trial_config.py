"""A trial's configuration: errors that name the key, and short names that are unique."""

from __future__ import annotations

import pytest

from coldtune import presets
from coldtune.config import plain
from coldtune.dotted import leaves
from coldtune.stages.trial import flat, parse_trial, short_name


def tree(**changes):
    made = presets.load("digits-quick")
    for path, value in changes.items():
        section, key = path.split("__")
        made[section][key] = value
    return made


def test_digits_quick_preset_scales_the_papers_celeba_setting() -> None:
    trial = parse_trial(tree())
    assert trial.degradation == {
        "kind": "blur",
        "steps": 20,
        "kernel_size": 7,
        "padding": "circular",
        "sigma": {"schedule": "exponential", "start": 0.5, "rate": 0.05},
    }
    assert (trial.data.name, trial.data.image_size, trial.training.batch_size) == ("digits", 16, 64)
    assert trial.training.lr == 1e-3
    assert trial.training.ema_warmup


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"training__stepz": 3}, r"training\.stepz = 3: unknown key; allowed: .*steps"),
        ({"training__steps": 0}, r"training\.steps = 0: .*greater than or equal to 1"),
        ({"sampler__algorithm": "ddim"}, r"sampler\.algorithm = 'ddim': .*'direct', 'naive' or 'tacos'"),
        ({"protocol__split": "dev"}, r"protocol\.split = 'dev': .*'validation'"),
        ({"data__image_size": "big"}, r"data\.image_size = 'big'"),
        ({"restorer__size": "huge"}, r"restorer\.size = 'huge'"),
    ],
)
def test_parse_trial_wrong_key_names_key_value_and_allowed(changes, said) -> None:
    with pytest.raises(ValueError, match=said):
        parse_trial(tree(**changes))


def test_parse_trial_names_every_wrong_key() -> None:
    with pytest.raises(ValueError, match=r"(?s)training\.steps.*training\.lr.*sampler\.draw"):
        parse_trial(tree(training__steps=0, training__lr=-1, sampler__draw="none"))


def test_parse_trial_unknown_or_missing_section_is_refused() -> None:
    with pytest.raises(ValueError, match="model: unknown section; allowed: data, degradation"):
        parse_trial({**tree(), "model": {}})
    with pytest.raises(ValueError, match="degradation: required"):
        parse_trial({"data": {"name": "digits"}})


def test_check_more_sampling_steps_than_severities_is_refused() -> None:
    trial = parse_trial(tree(sampler__num_steps=21))
    with pytest.raises(ValueError, match=r"sampler\.num_steps = 21: at most the degradation.s steps, 20"):
        trial.check((1, 16, 16))


def test_short_names_are_short_and_unique() -> None:
    paths = [path for path, _ in leaves(plain(parse_trial(tree())))]
    names = [short_name(path) for path in paths]
    assert len(set(names)) == len(names)
    assert set(flat(parse_trial(tree()))) == set(names)
    assert {"T", "kernel", "schedule", "rate", "start", "sampler", "lr", "batch", "N"} <= set(names)
    assert all(len(name) <= 16 and "." not in name for name in names)


def test_check_sampler_draw_of_deterministic_degradation_is_refused() -> None:
    with pytest.raises(ValueError, match=r"sampler\.draw = 'estimated'"):
        parse_trial(tree(sampler__draw="estimated")).check((1, 16, 16))


def test_parse_trial_prior_is_completed_and_checked() -> None:
    trial = parse_trial({**tree(), "prior": {"kind": "gmm"}})
    assert trial.prior == {"kind": "gmm", "noise_scale": 0.002, "components": 1}
    assert (trial.task, parse_trial(tree()).task) == ("generated", "restored")
    assert parse_trial({**tree(), "prior": {"kind": "data", "noise_scale": 0.1}}).task == "restored"
    assert parse_trial(plain(trial)) == trial
    assert flat(trial)["prior"] == "gmm"
    with pytest.raises(ValueError, match=r"prior\.kind = 'magic': allowed: color"):
        parse_trial({**tree(), "prior": {"kind": "magic"}})
    with pytest.raises(ValueError, match=r"prior = 3: must be a mapping"):
        parse_trial({**tree(), "prior": 3})
    with pytest.raises(ValueError, match=r"prior\.noise_scale = -1"):
        parse_trial({**tree(), "prior": {"kind": "gmm", "noise_scale": -1}})
    with pytest.raises(ValueError, match=r"prior\.kind = 'normal': needs noise, not blur"):
        parse_trial({**tree(), "prior": {"kind": "normal"}}).check((1, 16, 16))


@pytest.mark.parametrize(("size", "side", "fits"), [("micro", 13, False), ("base", 20, False), ("tiny", 20, True)])
def test_trial_check_restorer_must_fit_the_image_size(size: str, side: int, fits: bool) -> None:
    trial = parse_trial(tree(restorer__size=size, data__image_size=side))
    if fits:
        trial.check((1, side, side))
        return
    with pytest.raises(ValueError, match=rf"^restorer\.size = '{size}': .*not {side}x{side}\. .*\(data\.image_size\)$"):
        trial.check((1, side, side))

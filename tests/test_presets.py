"""The presets against the paper's sections 4 and 5 and its appendix, and against the authors' published settings."""

from __future__ import annotations

import math

import pytest
import torch

from coldtune import cli, presets
from coldtune.data import prepare
from coldtune.diffusion import build_degradation, build_restorer
from coldtune.diffusion.priors import build_prior
from coldtune.dotted import leaves
from coldtune.stages.trial import parse_trial

PAPER = [name for name in presets.names() if name.startswith("paper/")]
AUTHORS = [name for name in presets.names() if name.startswith("authors/")]

# Setting -> T and everything else that the paper states for it, by dotted key.
STATED = {
    "paper/mnist-blur": {"steps": 40, "kernel_size": 11, "sigma.schedule": "constant", "sigma.start": 7},
    "paper/cifar10-blur": {"kernel_size": 11, "sigma.schedule": "linear", "sigma.start": 0.36, "sigma.rate": 0.01},
    "paper/celeba-blur": {"kernel_size": 15, "sigma.schedule": "exponential", "sigma.rate": 0.01},
    "paper/mnist-mask": {"steps": 50, "beta.start": 1, "beta.step": 0.1, "center": "random", "quantize": True},
    "paper/cifar10-mask": {"steps": 50, "beta.start": 1, "beta.step": 0.1, "center": "random", "quantize": True},
    "paper/celeba-mask": {"steps": 50, "beta.start": 1, "beta.step": 0.1, "center": "fixed", "quantize": True},
    "paper/mnist-downsample": {"steps": 3},
    "paper/cifar10-downsample": {"steps": 3},
    "paper/celeba-downsample": {"steps": 6},
    "paper/cifar10-desaturate": {"steps": 50},
    "paper/celeba-desaturate": {"steps": 20},
    "paper/cifar10-snow": {"steps": 200, "mean": 0.55, "sd": 0.3, "threshold.start": 1.15, "threshold.end": 0.7,
                           "motion_sigma.start": 0.05, "motion_sigma.end": 16},
    "paper/celeba-snow": {"steps": 200, "mean": 0.55, "sd": 0.3, "threshold.start": 1.15, "threshold.end": 0.55,
                          "motion_sigma.start": 0.05, "motion_sigma.end": 20},
    "paper/celeba-blur-generation": {"steps": 300, "kernel_size": 27, "sigma.schedule": "exponential",
                                     "sigma.start": 1, "sigma.rate": 0.01},
    "paper/afhq-blur-generation": {"steps": 300, "kernel_size": 27, "sigma.schedule": "exponential",
                                   "sigma.start": 1, "sigma.rate": 0.01},
    "paper/celeba-noise": {"kind": "noise"},
    "paper/afhq-noise": {"kind": "noise"},
    "paper/celeba-mask-generation": {"kind": "mask", "fill": "color", "order": "forward"},
    "paper/celeba-downsample-generation": {"steps": 6},
    "paper/celeba-animorph": {"kind": "animorph", "source": "afhq"},
}  # fmt: skip

# The second-largest |eigenvalue| of A_T, computed from the authors' kernels, edges and T, to the digits shown.
LEFTOVERS = {
    "paper/mnist-blur": 6.3e-4,
    "authors/mnist-blur": 2.5e-2,
    "authors/cifar10-blur": 0.914,
    "paper/celeba-blur": 0.623,
    "paper/celeba-blur-generation": 1.3e-4,
}
TABLES = {
    "1": {"mnist-blur", "cifar10-blur", "celeba-blur"},
    "2": {"mnist-mask", "cifar10-mask", "celeba-mask"},
    "3": {"mnist-downsample", "cifar10-downsample", "celeba-downsample"},
    "4": {"celeba-blur-generation", "afhq-blur-generation", "celeba-noise", "afhq-noise"},
    "5": {"cifar10-desaturate", "celeba-desaturate"},
    "6": {"mnist-blur", "cifar10-blur", "celeba-blur"},
    "5.3": {"celeba-mask-generation", "celeba-downsample-generation", "celeba-animorph"},
    "A.7": {"celeba-blur-generation", "afhq-blur-generation"},
    "-": {"cifar10-snow", "celeba-snow"},
}


@pytest.mark.parametrize("name", presets.names())
def test_preset_builds_and_fits_its_sampler(name):
    tree = presets.load(name)
    trial, shape = parse_trial(tree), presets.image_shape(tree)
    trial.check(shape)
    d = build_degradation(trial.degradation, shape)
    trial.sampler.check(d)
    assert d.image_shape == shape
    assert shape[0] == (1 if trial.data.name in ("digits", "mnist") else 3)
    with torch.device("meta"):
        build_restorer(trial.restorer, shape, steps=d.steps)
    assert presets.describe(name)


def test_presets_cover_settings_of_paper():
    assert set(PAPER) == set(STATED)


@pytest.mark.parametrize("name", PAPER)
def test_preset_degradation_equals_paper(name):
    written = dict(leaves(presets.load(name)["degradation"]))
    assert {key: written.get(key) for key in STATED[name]} == STATED[name]


@pytest.mark.parametrize("name", PAPER)
def test_preset_training_equals_appendix(name):
    training = parse_trial(presets.load(name)).training
    inpainting = presets.tables(name) == ("2",)
    assert (training.steps, training.batch_size) == ((60_000, 64) if inpainting else (700_000, 32))
    assert (training.lr, training.accumulate, training.loss) == (2e-5, 2, "l1")
    assert (training.ema_decay, training.ema_every, training.ema_warmup) == (0.995, 10, False)


@pytest.mark.parametrize(("name", "leftover"), LEFTOVERS.items())
def test_preset_blur_leftover_equals_authors_kernels(name, leftover):
    digits = len(f"{leftover:e}".split("e")[0].rstrip("0").replace(".", ""))
    found = presets.summary(name).leftover
    assert round(found, digits - 1 - math.floor(math.log10(found))) == pytest.approx(leftover)


@pytest.mark.parametrize("table", TABLES)
def test_presets_of_table_equal_table_of_paper(table):
    wanted = () if table == "-" else (table,)
    listed = {
        name.removeprefix("paper/")
        for name in PAPER
        if set(wanted) & set(presets.tables(name)) or presets.tables(name) == wanted
    }
    assert listed == TABLES[table]


@pytest.mark.parametrize("name", AUTHORS)
def test_preset_of_authors_differs_from_paper_in_more_than_index(name):
    mine = dict(leaves(presets.load(name)))
    papers = dict(leaves(presets.load(name.replace("authors/", "paper/"))))
    assert mine.pop("restorer.index") == "t-1"
    assert mine["data.name"] == papers["data.name"]
    assert mine != papers
    assert presets.tables(name) == presets.tables(name.replace("authors/", "paper/"))


@pytest.mark.parametrize("name", [name for name in presets.names() if {"4", "5.3"} & set(presets.tables(name))])
def test_preset_generation_prior_fits_degradation(name):
    tree = presets.load(name)
    d = build_degradation(tree["degradation"], presets.image_shape(tree))
    assert build_prior(tree["prior"], d).d is d
    assert parse_trial(tree).task == "generated"


def test_preset_has_prior_only_for_generation():
    for name in presets.names():
        generates = bool({"4", "5.3"} & set(presets.tables(name)))
        assert (parse_trial(presets.load(name)).task == "generated") == generates


@pytest.mark.parametrize("dataset", ["celeba", "afhq"])
def test_prepare_dataset_without_download_names_source_of_files(dataset, tmp_path):
    with pytest.raises(ValueError, match=f"{dataset}: there is no automatic download: get .* pass --data-dir PATH"):
        prepare({"name": dataset, "image_size": 128}, tmp_path, progress=False)


def test_presets_command_lists_every_preset(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as ended:
        cli.main(["presets"])
    assert ended.value.code == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0][:5] == ["name", "degradation", "T", "leftover", "table"]
    rows = {line[0]: line[1:] for line in lines[1:] if line}
    assert set(presets.names()) <= set(rows)
    assert rows["paper/mnist-blur"][:5] == ["blur", "40", "0.00063", "1,", "6"]
    assert rows["paper/celeba-snow"][:4] == ["snow", "200", "-", "-"]

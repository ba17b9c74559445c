"""The paper's tables as studies: the possible combinations, their trials, and the cells that the trials fill."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from coldtune import presets
from coldtune.config import plain
from coldtune.diffusion import build_degradation
from coldtune.dotted import leaves
from coldtune.metrics import Judgement, Protocol, Value
from coldtune.reports.paper.tables import tables
from coldtune.reports.paper.text import markdown
from coldtune.stages.trial import parse_trial
from coldtune.studies.designs.paper_table import build_table_study, describe_table, plan_table
from coldtune.studies.designs.paper_table_report import fill_table
from coldtune.studies.space.space import Space
from coldtune.studies.spec.study import StudySpec
from coldtune.studies.storage.outcome import TrialOutcome
from coldtune.studies.storage.record import write_study
from coldtune.studies.trials.ledger import Ledger, open_ledger

DATASETS = ("digits", "mnist", "cifar10", "celeba", "afhq")
# The datasets for which the paper reports a table, and for which a quick version exists. Table 5 needs colour.
ALLOWED = {
    "paper": {
        **dict.fromkeys(("1", "2", "3", "6"), ("mnist", "cifar10", "celeba")),
        **dict.fromkeys(("4", "A.7"), ("celeba", "afhq")),
        "5": ("cifar10", "celeba"),
        "5.3": ("celeba",),
    },
    "quick": {
        **dict.fromkeys(("1", "2", "3", "4", "6", "5.3", "A.7"), ("digits", "mnist", "cifar10")),
        "5": ("cifar10",),
    },
}
CASES = [
    (preset, number, dataset)
    for preset, number, dataset in itertools.product(ALLOWED, tables(), DATASETS)
    if dataset in ALLOWED[preset][number]
]
REFUSED = [
    (preset, number, dataset)
    for preset, number, dataset in itertools.product(ALLOWED, tables(), DATASETS)
    if dataset not in ALLOWED[preset][number]
]


def space_of(spec: StudySpec) -> Space:
    return Space(spec.space, spec.base, presets.image_shape(spec.base))


@pytest.mark.parametrize(("preset", "number", "dataset"), CASES)
def test_paper_table_possible_combination_builds_and_resolves(preset: str, number: str, dataset: str) -> None:
    spec = build_table_study(number, dataset, preset)
    space = space_of(spec)
    made = plan_table(number, dataset, preset)
    assert list(spec.space.variants) == list(made.presets)
    assert {*made.presets, *made.absent} == set(tables()[number].trials)
    for name, found in made.presets.items():
        trial = space.resolve({"variant": name})
        asked = presets.load(found)
        assert number in presets.tables(found), "the preset says that it belongs to this table"
        assert trial.data.name == dataset
        assert trial.degradation == parse_trial(asked).degradation
        assert plain(trial.training) == plain(parse_trial(asked).training)
        assert trial.protocol.split == "test", "the paper's figures are of held-out test images"
        also = tables()[number].trials[name].set
        values = dict(leaves(plain(trial)))
        assert {key: values[key] for key in also} == also
    assert spec.name.startswith(f"paper_table_{number}_{dataset}_{preset}-")


@pytest.mark.parametrize(("preset", "number", "dataset"), REFUSED)
def test_paper_table_impossible_combination_is_refused_with_the_reason(preset: str, number: str, dataset: str) -> None:
    with pytest.raises(ValueError, match=rf"^--table {number} --dataset {dataset}") as refused:
        plan_table(number, dataset, preset)
    said = str(refused.value)
    if number == "5" and dataset in ("digits", "mnist"):
        assert "a single channel and no colour to remove" in said
    elif preset == "paper":
        assert f"the paper has no such experiment on {dataset}" in said
    else:
        assert f"there is no quick setting of it for {dataset}" in said
    for name in ALLOWED[preset][number]:
        assert name in said
    other = "quick" if preset == "paper" else "paper"
    assert (f"with --preset {other}: {dataset}" in said) == (dataset in ALLOWED[other][number])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("7", "digits", "quick"), "--table 7: no such table of the paper. Allowed: 1, 2, 3, 4, 5, 6, 5.3, A.7"),
        (
            ("1", "imagenet", "quick"),
            "unknown dataset 'imagenet'; allowed: afhq, celeba, cifar10, digits, folder, mnist",
        ),
        (("1", "digits", "fast"), "--preset fast: allowed: quick, paper"),
    ],
)
def test_paper_table_unknown_name_is_refused(arguments: tuple[str, str, str], said: str) -> None:
    with pytest.raises(ValueError, match=said.replace(".", r"\.")):
        plan_table(*arguments)


@pytest.mark.parametrize(
    ("number", "setting", "said"),
    [
        ("4", "sampler.draw=fixed", "--set sampler.draw=fixed: is the key in which the columns of this table differ"),
        ("4", "prior.noise_scale=1", "is the key in which the columns of this table differ"),
        ("1", "search.startup=3", "--set search.startup=3: a table searches nothing"),
        ("1", "training.stepz=3", r"training\.stepz = 3: unknown key"),
    ],
)
def test_paper_table_setting_of_a_column_is_refused(number: str, setting: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        build_table_study(number, "digits", "quick", settings=[setting])


def test_paper_table_setting_changes_every_trial() -> None:
    space = space_of(
        build_table_study("4", "digits", "quick", seed=3, settings=["training.steps=7", "protocol.num_images=300"])
    )
    trials = [space.resolve({"variant": name}) for name in space.config.variants]
    assert len(trials) == 4
    assert {(t.training.steps, t.training.seed, t.protocol.num_images) for t in trials} == {(7, 3, 300)}


def test_paper_table_4_has_two_alternating_trainings() -> None:
    space = space_of(build_table_study("4", "digits", "quick"))
    trials = {name: space.resolve({"variant": name}) for name in space.config.variants}
    assert [trial.degradation["kind"] for trial in trials.values()] == ["noise", "blur", "noise", "blur"]
    assert {name: trial.sampler.draw for name, trial in trials.items() if "noise" in name} == {
        "fixed noise": "fixed", "estimated noise": "estimated",
    }  # fmt: skip
    perfect, broken = trials["perfect symmetry"], trials["broken symmetry"]
    assert (perfect.prior["noise_scale"], broken.prior["noise_scale"]) == (0, 0.002), "5.2"
    assert perfect.model_copy(update={"prior": broken.prior}) == broken


def test_paper_tables_share_their_trainings() -> None:
    def trial(number: str, name: str) -> dict:
        return plain(space_of(build_table_study(number, "digits", "quick")).resolve({"variant": name}))

    assert trial("1", "TACoS") == trial("6", "TACoS")
    assert trial("4", "broken symmetry") == trial("A.7", "broken symmetry")


def test_paper_table_name_depends_on_table_and_settings() -> None:
    specs = [
        build_table_study("1", "digits", "quick"),
        build_table_study("6", "digits", "quick"),
        build_table_study("1", "digits", "quick", seed=1),
        build_table_study("1", "digits", "quick", settings=["training.steps=5"]),
    ]
    assert len({spec.name for spec in specs}) == 4
    assert build_table_study("1", "digits", "quick").name == specs[0].name


def test_paper_table_description_names_absent_trials(tmp_path: Path) -> None:
    spec = build_table_study("5.3", "digits", "quick")
    spec.save(tmp_path)
    lines = describe_table(StudySpec.load(tmp_path))
    assert lines[0] == ("fills", "Section 5.3 of the paper: Generation using other transformations")
    assert lines[1][1].startswith("animorphosis: there is no preset quick/digits-animorph")
    assert describe_table(build_table_study("5.3", "mnist", "quick"))[1:] == []


# --- From trials to cells.

PROTOCOL = Protocol(
    extractor="digits", extractor_sha256="ab" * 32, extractor_input="8 bit", dim=64, dataset="digits",
    dataset_fingerprint="cd" * 32, image_shape=(1, 16, 16), resize="bilinear", split="test", task="generated",
    num_images=300, reference_images=358, seed=0,
)  # fmt: skip
SETS = ("degraded", "direct", "naive", "sampled")


def ledger(folder: Path, number: str, replicates: int = 1) -> Ledger:
    spec = build_table_study(number, "digits", "quick")
    storage = JournalStorage(JournalFileBackend(str(folder / "journal.log")))
    return open_ledger(spec.name, spec, space_of(spec), storage, replicates=replicates)


def finish(made: Ledger, folder: Path, fids: dict[str, float], keep: bool = True, checkpoint: str | None = None) -> int:
    """Ask a trial and tell the FID of each set of images, with an interval half a unit wide."""
    asked = made.ask()
    measured = {}
    for images, fid in fids.items():
        place = folder / f"{asked.number}-{images}"
        place.mkdir()
        influence = torch.zeros(PROTOCOL.num_images, dtype=torch.float64)
        value = Value("fid", fid, PROTOCOL.num_images, PROTOCOL, fid - 0.25, fid + 0.25)
        Judgement(PROTOCOL, {"fid": value}, {"fid": influence}).save(place)
        measured[images] = str(place if keep else place / "gone")
    flat = {f"fid{'' if images == 'sampled' else f'_{images}'}": fid for images, fid in fids.items()}
    made.complete(asked.number, TrialOutcome(flat, plain(PROTOCOL), measured=measured, checkpoint=checkpoint))
    return asked.number


def test_paper_table_cells_show_their_trial_and_images(tmp_path: Path) -> None:
    made = ledger(tmp_path, "4")
    for number in range(4):
        finish(made, tmp_path, {images: 100.0 * number + i for i, images in enumerate(SETS)})
    # The trials are asked in another order than the paper prints its columns.
    cells = fill_table(made).cells
    assert [(cell.value, cell.low, cell.high) for cell in cells] == [
        (fid, fid - 0.25, fid + 0.25) for fid in (3.0, 203.0, 103.0, 303.0)
    ]


def test_paper_table_with_replicates_shows_means_and_pairs_by_network(tmp_path: Path) -> None:
    """By hand: the three differences of one network each are -4.0, -3.9 and -4.1, so their mean is -4."""
    made = ledger(tmp_path, "A.7", replicates=3)
    for place, (direct, sampled) in enumerate([(9.0, 5.0), (9.9, 6.0), (8.1, 4.0)]):
        assert "measured" not in dict(fill_table(made).foot)
        finish(made, tmp_path, {"direct": direct, "naive": 7.0, "sampled": sampled}, checkpoint=f"train/{place}")
    filled = fill_table(made)
    assert [cell.value for cell in filled.cells] == pytest.approx([9.0, 5.0])
    assert filled.spreads == {0: (pytest.approx(0.9), 3), 1: (pytest.approx(1.0), 3)}
    said = dict(filled.foot)["measured"]
    assert said.startswith("Algorithm 2 is better than Direct: FID -4")
    assert "3 trainings each (paired)" in said
    assert "5.00 ± 1.00 (3)" in markdown(filled)


def test_paper_table_with_more_replicates_charges_the_second_look(tmp_path: Path) -> None:
    made = ledger(tmp_path, "A.7", replicates=3)
    write_study(made.study, replicates=[3])
    values = [(9.0, 8.0), (9.9, 8.8), (8.1, 7.2), (9.2, 8.1), (9.5, 8.6)]
    for place, (direct, sampled) in enumerate(values[:3]):
        finish(made, tmp_path, {"direct": direct, "naive": 7.0, "sampled": sampled}, checkpoint=f"train/{place}")
    first = dict(fill_table(made).foot)["measured"]
    assert "looks" not in first
    made = open_ledger(made.spec.name, made.spec, made.space, made.study._storage, replicates=5)
    write_study(made.study, replicates=[3, 5])
    assert "3 trainings each" in dict(fill_table(made).foot)["measured"], "the first look keeps its verdict"
    for place, (direct, sampled) in enumerate(values[3:], 3):
        finish(made, tmp_path, {"direct": direct, "naive": 7.0, "sampled": sampled}, checkpoint=f"train/{place}")
    said = dict(fill_table(made).foot)["measured"]
    assert "adjusted for 2 looks, 5 trainings each (paired)" in said


def test_paper_table_6_shows_three_sets_of_images_of_a_trial(tmp_path: Path) -> None:
    made = ledger(tmp_path, "A.7")
    finish(made, tmp_path, {"direct": 9.0, "naive": 7.0, "sampled": 5.0})
    filled = fill_table(made)
    assert [cell.value for cell in filled.cells] == [9.0, 5.0]
    assert (
        "measured",
        "Algorithm 2 is better than Direct: FID -4, 95 % CI [-4, -4], N = 300, same draws. Both use one training, so "
        "this says nothing about other trainings.",
    ) in filled.foot


def test_paper_table_cell_without_store_entry_has_no_interval(tmp_path: Path) -> None:
    made = ledger(tmp_path, "A.7")
    finish(made, tmp_path, {"direct": 9.0, "sampled": 5.0}, keep=False)
    assert [(cell.value, cell.low) for cell in fill_table(made).cells] == [(9.0, None), (5.0, None)]


def test_paper_table_cell_without_value_says_why(tmp_path: Path) -> None:
    made = ledger(tmp_path, "5.3")
    assert fill_table(made).cells[:2] == ["not measured yet"] * 2
    made.fail(made.ask().number, "ValueError: loss is NaN")
    assert fill_table(made).cells[0] == "trial 0 failed: ValueError: loss is NaN"
    finish(made, tmp_path, {"sampled": 5.0})
    cells = fill_table(made).cells
    assert cells[1].value == 5.0
    assert cells[2].startswith("there is no preset quick/digits-animorph")


def test_paper_table_foot_lists_changed_settings(tmp_path: Path) -> None:
    spec = build_table_study("1", "digits", "quick", seed=2, settings=["training.steps=5", "training.report_every=1"])
    storage = JournalStorage(JournalFileBackend(str(tmp_path / "journal.log")))
    ((_, text),) = fill_table(open_ledger("s", spec, space_of(spec), storage)).foot
    assert text.startswith("quick/digits-blur: deblurring digits")
    assert text.endswith("5 steps of 64 images; changed: training.steps = 5, training.seed = 2")
    plainly = fill_table(ledger(tmp_path, "1")).foot[0][1]
    assert "changed" not in plainly


# --- The quick presets.

QUICK = [name for name in presets.names() if name.startswith("quick/")]


@pytest.mark.parametrize("name", QUICK)
def test_quick_preset_keeps_the_task_of_its_table(name: str) -> None:
    """Only the size is scaled down. The kind, the loss, and the prior of x_T are the paper's."""
    dataset, _, task = name.removeprefix("quick/").partition("-")
    papers = [p for p in presets.names() if p.startswith("paper/") and p.endswith(f"-{task}")]
    assert papers
    paper = presets.load(f"paper/{dataset}-{task}" if f"paper/{dataset}-{task}" in papers else papers[-1])
    mine = presets.load(name)
    assert mine["degradation"]["kind"] == paper["degradation"]["kind"]
    assert mine.get("prior") == paper.get("prior")
    assert mine["sampler"] == paper["sampler"]
    assert presets.tables(name) == presets.tables(papers[-1])
    assert parse_trial(mine).training.loss == "l1"
    assert mine["training"]["steps"] < paper["training"]["steps"] / 10
    assert mine["protocol"]["extractor"] == dataset, "judged by the classifier that ships for these images"


LEFTOVERS = {  # the second-largest |eigenvalue| of A_T as in the paper's setting of the task, see tests/test_presets.py
    "quick/digits-blur": 6.3e-4,
    "quick/mnist-blur": 6.3e-4,
    "quick/digits-blur-generation": 1.3e-4,
    "quick/mnist-blur-generation": 1.3e-4,
    "quick/cifar10-blur-generation": 1.3e-4,
}


@pytest.mark.parametrize(("name", "leftover"), LEFTOVERS.items())
def test_quick_blur_ends_as_strong_as_the_paper(name: str, leftover: float) -> None:
    assert presets.summary(name).leftover == pytest.approx(leftover, rel=0.01)


def test_quick_preset_of_a_paper_dataset_degrades_as_the_paper() -> None:
    same = [name for name in QUICK if name.replace("quick/", "paper/") in presets.names()]
    assert len(same) == 7
    for name in same:
        mine, papers = presets.load(name), presets.load(name.replace("quick/", "paper/"))
        shape = presets.image_shape(mine)
        assert (
            build_degradation(mine["degradation"], shape).config
            == build_degradation(papers["degradation"], shape).config
        )

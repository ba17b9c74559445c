"""A table of the paper as a study: each trial of the table is a variant, made from a preset."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from coldtune import presets
from coldtune.config import parse, plain
from coldtune.data.registry import channels
from coldtune.dotted import set_key
from coldtune.reports.paper.tables import PaperTable, heading, tables
from coldtune.studies.space.config import SpaceConfig
from coldtune.studies.spec.build import change_base
from coldtune.studies.spec.image_size import warn_of_image_size
from coldtune.studies.spec.study import StudySpec

PRESETS = ("quick", "paper")
SPLIT = "test"  # the paper reports held-out test images (section 4), and nobody chooses a setting by looking at a table


@dataclass(frozen=True)
class TablePlan:
    """The trials of a table for one dataset.

    Attributes:
        presets: By name of a trial, the name of its preset.
        absent: By name of a trial that is left out, the reason.
    """

    table: PaperTable
    presets: Mapping[str, str]
    absent: Mapping[str, str]


def plan_table(number: str, dataset: str, preset: str) -> TablePlan:
    """Return the trials of table `number` for a dataset.

    Raises:
        ValueError: If the table is not possible for the dataset. The message says why, and what is possible.
    """
    if number not in tables():
        raise ValueError(f"--table {number}: no such table of the paper. Allowed: {', '.join(tables())}")
    if preset not in PRESETS:
        raise ValueError(f"--preset {preset}: allowed: {', '.join(PRESETS)}")
    table = tables()[number]
    if number == "5" and channels(dataset) == 1:
        raise ValueError(
            f"--table 5 --dataset {dataset}: its images have a single channel and no colour to remove. Allowed: "
            f"{', '.join(_datasets(number, preset))}"
        )
    channels(dataset)  # raises for an unknown dataset
    named = {name: f"{preset}/{dataset}-{trial.task}" for name, trial in table.trials.items()}
    possible = {name: found for name, found in named.items() if found in presets.names()}
    if not possible:
        raise ValueError(
            f"--table {number} --dataset {dataset} --preset {preset}: {_why_impossible(number, dataset, preset)}"
        )
    absent = {name: _why_absent(found) for name, found in named.items() if found not in presets.names()}
    return TablePlan(table, possible, absent)


def build_table_study(
    number: str, dataset: str, preset: str, *, seed: int | None = None, settings: Sequence[str] = ()
) -> StudySpec:
    """Return the spec of the study that fills table `number`. Its trials are judged alike, on the test split.

    Args:
        settings: `key=value` as for any study. They change every trial.

    Raises:
        ValueError: If the table is not possible, or a setting is refused.
    """
    plan = plan_table(number, dataset, preset)
    _check_settings(plan.table, settings)
    trees = {name: _tree(found, plan.table.trials[name].set, seed, settings) for name, found in plan.presets.items()}
    first, base = next(iter(trees.items()))
    variants = {name: _differences(base, tree) for name, tree in trees.items()}
    return StudySpec(
        job=f"paper_table_{number}_{dataset}_{preset}",
        space=parse(SpaceConfig, {"base": plan.presets[first], "variants": variants}, "table"),
        base=base,
        seed=seed or 0,
        table=number,
    )


def plan_of(spec: StudySpec) -> TablePlan:
    """Return the plan of a study that `build_table_study` made."""
    assert spec.table is not None
    assert isinstance(spec.space.base, str)
    return plan_table(spec.table, spec.base["data"]["name"], spec.space.base.partition("/")[0])


def describe_table(spec: StudySpec) -> list[tuple[str, str]]:
    """Return headings and texts: the table that a study fills, and which of its trials are left out and why.

    The list is empty for a study that fills no table.
    """
    if spec.table is None:
        return []
    return [("fills", heading(spec.table)), *(("without", f"{k}: {v}") for k, v in plan_of(spec).absent.items())]


def _check_settings(table: PaperTable, settings: Sequence[str]) -> None:
    differ = {key for trial in table.trials.values() for key in trial.set}
    for setting in settings:
        key = setting.partition("=")[0].strip()
        if key.startswith("search."):
            raise ValueError(f"--set {setting}: a table searches nothing, because its trials are the paper's.")
        if key in differ:
            raise ValueError(f"--set {setting}: is the key in which the columns of this table differ")


def _datasets(number: str, preset: str) -> list[str]:
    """Return the datasets for which a table has a preset."""
    tasks = {trial.task for trial in tables()[number].trials.values()}
    listed = (
        name.removeprefix(f"{preset}/").partition("-") for name in presets.names() if name.startswith(f"{preset}/")
    )
    return sorted({dataset for dataset, _, task in listed if task in tasks})


def _why_impossible(number: str, dataset: str, preset: str) -> str:
    allowed = ", ".join(_datasets(number, preset))
    other = next(name for name in PRESETS if name != preset)
    instead = f"; with --preset {other}: {dataset}" if dataset in _datasets(number, other) else ""
    if preset == "paper":
        return f"the paper has no such experiment on {dataset}, only on: {allowed}{instead}"
    return f"there is no quick setting of it for {dataset}; allowed: {allowed}{instead}"


def _why_absent(preset: str) -> str:
    needs = ", which would need a second dataset of such images" if preset.endswith("-animorph") else ""
    return f"there is no preset {preset}{needs}"


def _tree(preset: str, also: Mapping[str, Any], seed: int | None, settings: Sequence[str]) -> dict[str, Any]:
    """Return the whole configuration of a trial: the preset, changed by its column and then by the command line."""
    tree = presets.load(preset)
    set_key(tree, "protocol.split", SPLIT)
    for key, value in also.items():
        set_key(tree, key, value)
    written = copy.deepcopy(tree)
    base = change_base(tree, {}, seed=seed, settings=settings)
    warn_of_image_size(written, base)
    return dict(plain(base))


def _differences(base: Mapping[str, Any], tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return the sections of a configuration that differ from the base."""
    return {section: copy.deepcopy(value) for section, value in tree.items() if value != base.get(section)}

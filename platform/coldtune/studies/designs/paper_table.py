"""A table of the paper as a study: which presets it trains, each variant once, and the table filled from its trials."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from coldtune import presets
from coldtune.config import parse, plain
from coldtune.data.registry import channels
from coldtune.dotted import leaves, set_key
from coldtune.metrics import Judgement, Value, compare
from coldtune.reports.paper.tables import FilledTable, PaperColumn, PaperTable, heading, tables
from coldtune.stages.trial import TrialConfig, parse_trial
from coldtune.studies.space.config import VARIANT, SpaceConfig
from coldtune.studies.spec.build import change_base
from coldtune.studies.spec.study import StudySpec
from coldtune.studies.storage.record import TrialRecord
from coldtune.studies.trials.reading import StudyReader
from coldtune.training.config import TrainingConfig

PRESETS = ("quick", "paper")
SPLIT = "test"  # the paper's figures are of held-out test images (section 4); nothing is chosen by looking at a table


@dataclass(frozen=True)
class Plan:
    """What a table of one dataset asks: its trials' presets, and why those that are left out are.

    presets: by trial, the preset's name. absent: by trial, the reason.
    """

    table: PaperTable
    presets: Mapping[str, str]
    absent: Mapping[str, str]


def plan(number: str, dataset: str, preset: str) -> Plan:
    """The trials of table `number` for a dataset; ValueError with the reason where they are not possible."""
    if number not in tables():
        raise ValueError(f"--table {number}: no such table of the paper; allowed: {', '.join(tables())}")
    if preset not in PRESETS:
        raise ValueError(f"--preset {preset}: allowed: {', '.join(PRESETS)}")
    table = tables()[number]
    if number == "5" and channels(dataset) == 1:
        raise ValueError(
            f"--table 5 --dataset {dataset}: its images have one channel, no colour to take away; allowed: "
            f"{', '.join(_datasets(number, preset))}"
        )
    channels(dataset)  # refuses an unknown one
    named = {name: f"{preset}/{dataset}-{trial.task}" for name, trial in table.trials.items()}
    there = {name: found for name, found in named.items() if found in presets.names()}
    if not there:
        raise ValueError(f"--table {number} --dataset {dataset} --preset {preset}: {_why_not(number, dataset, preset)}")
    absent = {name: _why_absent(found) for name, found in named.items() if found not in presets.names()}
    return Plan(table, there, absent)


def build(
    number: str, dataset: str, preset: str, *, seed: int | None = None, settings: Sequence[str] = ()
) -> StudySpec:
    """The study that fills table `number`: its trials as variants, judged alike on the test split.

    settings: `key=value` as for any study; they change every trial. ValueError naming what is wrong.
    """
    made = plan(number, dataset, preset)
    _check_settings(made.table, settings)
    trees = {name: _tree(found, made.table.trials[name].set, seed, settings) for name, found in made.presets.items()}
    first, base = next(iter(trees.items()))
    variants = {name: _differences(base, tree) for name, tree in trees.items()}
    return StudySpec(
        job=f"paper_table_{number}_{dataset}_{preset}",
        space=parse(SpaceConfig, {"base": made.presets[first], "variants": variants}, "table"),
        base=base,
        seed=seed or 0,
        table=number,
    )


def plan_of(spec: StudySpec) -> Plan:
    """The plan of a study that `build` made."""
    assert spec.table is not None
    assert isinstance(spec.space.base, str)
    return plan(spec.table, spec.base["data"]["name"], spec.space.base.partition("/")[0])


def described(spec: StudySpec) -> list[tuple[str, str]]:
    """Which table a study fills, and what of it is left out and why, as headings and texts; nothing for others."""
    if spec.table is None:
        return []
    return [("fills", heading(spec.table)), *(("without", f"{k}: {v}") for k, v in plan_of(spec).absent.items())]


def fill(reader: StudyReader) -> FilledTable:
    """The table with what the study's trials measured so far; cells without a value say why."""
    spec = reader.spec
    assert spec.table is not None
    made = plan_of(spec)
    trials = {trial.params.get(VARIANT): trial for trial in reader.trials()}
    cells = [
        made.absent.get(name) or _cell(reader, column, trials.get(name))
        for column in made.table.columns
        for name in [made.table.trial_of(column)]
    ]
    foot = [*_trained(reader, made), *_verdicts(reader, made.table, trials)]
    return FilledTable(spec.table, spec.base["data"]["name"], cells, foot)


def _check_settings(table: PaperTable, settings: Sequence[str]) -> None:
    differ = {key for trial in table.trials.values() for key in trial.set}
    for setting in settings:
        key = setting.partition("=")[0].strip()
        if key.startswith("search."):
            raise ValueError(f"--set {setting}: a table searches nothing; its trials are the paper's")
        if key in differ:
            raise ValueError(f"--set {setting}: is what the columns of this table differ in")


def _datasets(number: str, preset: str) -> list[str]:
    """The datasets for which a table has all its presets, or some."""
    tasks = {trial.task for trial in tables()[number].trials.values()}
    listed = (
        name.removeprefix(f"{preset}/").partition("-") for name in presets.names() if name.startswith(f"{preset}/")
    )
    return sorted({dataset for dataset, _, task in listed if task in tasks})


def _why_not(number: str, dataset: str, preset: str) -> str:
    allowed = ", ".join(_datasets(number, preset))
    other = next(name for name in PRESETS if name != preset)
    instead = f"; with --preset {other}: {dataset}" if dataset in _datasets(number, other) else ""
    if preset == "paper":
        return f"the paper has no such experiment on {dataset}; its own are on: {allowed}{instead}"
    return f"there is no quick setting of it for {dataset}; allowed: {allowed}{instead}"


def _why_absent(preset: str) -> str:
    needs = ", which would need a second dataset of such images" if preset.endswith("-animorph") else ""
    return f"there is no preset {preset}{needs}"


def _tree(preset: str, also: Mapping[str, Any], seed: int | None, settings: Sequence[str]) -> dict[str, Any]:
    """A trial's whole configuration: the preset, what its column asks, then the command line's."""
    tree = presets.load(preset)
    set_key(tree, "protocol.split", SPLIT)
    for key, value in also.items():
        set_key(tree, key, value)
    return dict(plain(change_base(tree, {}, seed=seed, settings=settings)))


def _differences(base: Mapping[str, Any], tree: Mapping[str, Any]) -> dict[str, Any]:
    """The sections of a configuration that are not as in the base."""
    return {section: copy.deepcopy(value) for section, value in tree.items() if value != base.get(section)}


def _cell(reader: StudyReader, column: PaperColumn, trial: FrozenTrial | None) -> Value | str:
    if trial is None or trial.state in (TrialState.RUNNING, TrialState.WAITING):
        return "not measured yet"
    if trial.state != TrialState.COMPLETE:
        return f"trial {trial.number} failed: {TrialRecord.of(trial).reason or 'no reason known'}"
    judged = _judgement(reader, trial, column.of)
    if judged is not None and column.metric in judged.values:
        return judged.values[column.metric]
    suffix = "" if column.of == "sampled" else f"_{column.of}"
    record = TrialRecord.of(trial)
    value, protocol = record.metrics.get(f"{column.metric}{suffix}"), record.judged_under
    assert protocol is not None, f"trial {trial.number} has completed"
    if value is None:
        return f"{column.metric.upper()} is not defined for {protocol.task} images"
    return Value(column.metric, value, protocol.num_images, protocol)


def _judgement(reader: StudyReader, trial: FrozenTrial, images: str) -> Judgement | None:
    """What the store still knows of a set of images; None where its entry was removed or moved."""
    try:
        return Judgement.load(reader.local_folder(TrialRecord.of(trial).measured[images]))
    except (KeyError, OSError, ValueError):
        return None


def _trained(reader: StudyReader, made: Plan) -> list[tuple[str, str]]:
    """What the numbers are of: each preset with the trials that it serves, its training, and what was changed of it."""
    served: dict[str, list[str]] = {}
    for name, preset in made.presets.items():
        served.setdefault(preset, []).append(name)
    lines = []
    for preset, names in served.items():
        config = reader.space.resolve({VARIANT: names[0]})
        whom = f" ({', '.join(names)})" if len(served) > 1 else ""
        changed = _changed(preset, made.table.trials[names[0]].set, config)
        text = f"{preset}{whom}: {presets.describe(preset)}; {_training(config)}"
        lines.append(("ours", f"{text}; changed: {', '.join(changed)}" if changed else text))
    return lines


def _training(config: TrialConfig) -> str:
    training = config.training
    images = training.batch_size * training.accumulate
    steps = f"{training.steps:,} steps of {images} images"
    return f"T = {config.degradation['steps']}, {config.restorer.size} restorer, {steps}"


def _changed(preset: str, also: Mapping[str, Any], config: TrialConfig) -> list[str]:
    """What the command line changed of the preset; not the split, which is every table's, nor mere bookkeeping."""
    tree = presets.load(preset)
    for key, value in also.items():
        set_key(tree, key, value)
    before, after = dict(leaves(plain(parse_trial(tree)))), dict(leaves(plain(config)))
    before["protocol.split"] = SPLIT
    bookkeeping = {f"training.{key}" for key in TrainingConfig.BOOKKEEPING - {"steps"}}
    changed = [key for key in after if key not in bookkeeping and after[key] != before.get(key)]
    return [f"{key} = {after[key]}" for key in changed]


def _verdicts(reader: StudyReader, table: PaperTable, trials: Mapping[Any, FrozenTrial]) -> list[tuple[str, str]]:
    """What the paper says is better, compared here image by image, where both were measured."""
    lines = []
    for better, worse in table.claims:
        columns = [table.columns[number] for number in (better, worse)]
        found = [trials.get(table.trial_of(column)) for column in columns]
        judged = [
            _judgement(reader, trial, column.of) if trial else None
            for trial, column in zip(found, columns, strict=True)
        ]
        if judged[0] is not None and judged[1] is not None:
            names = (columns[0].images, columns[1].images)
            lines.append(("measured", str(compare(judged[0], judged[1], columns[0].metric, names))))
    return lines

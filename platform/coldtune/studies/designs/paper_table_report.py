"""Filling a table of the paper with the measurements of a study's trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from coldtune import presets
from coldtune.config import plain
from coldtune.dotted import leaves, set_key
from coldtune.metrics import Judgement, Value, compare
from coldtune.reports.networks import describe_networks
from coldtune.reports.paper.tables import FilledTable, PaperColumn, PaperTable
from coldtune.stages.trial import TrialConfig, parse_trial
from coldtune.studies.designs.paper_table import SPLIT, TablePlan, plan_of
from coldtune.studies.space.config import VARIANT
from coldtune.studies.storage.record import TrialRecord
from coldtune.studies.storage.settings import Setting, Spread
from coldtune.studies.trials.judging import network_of, read_training
from coldtune.studies.trials.reading import StudyReader
from coldtune.training.config import TrainingConfig
from coldtune.verdicts import Plan, Verdict
from coldtune.verdicts import Setting as Judgeable
from coldtune.verdicts import compare as compare_settings
from coldtune.verdicts.families import ALPHA, later_verdict
from coldtune.verdicts.levels import per_comparison


def fill_table(reader: StudyReader) -> FilledTable:
    """Return the table with the measurements so far. A cell without a value says why."""
    spec = reader.spec
    assert spec.table is not None
    plan = plan_of(spec)
    settings = {setting.point.get(VARIANT): setting for setting in reader.settings()}
    cells: list[Value | str] = []
    spreads: dict[int, tuple[float | None, int]] = {}
    for place, column in enumerate(plan.table.columns):
        name = plan.table.trial_of(column)
        setting = settings.get(name)
        if name not in plan.absent and reader.replicated and setting is not None and setting.finished:
            cell, spread = _mean_cell(reader, column, setting)
            if spread is not None:
                spreads[place] = (spread.sd, spread.n)
        else:
            cell = plan.absent.get(name) or _cell(reader, column, None if setting is None else setting.trials[0])
        cells.append(cell)
    foot = [*_trained(reader, plan), *_early(reader), *_verdicts(reader, plan.table, settings)]
    return FilledTable(spec.table, spec.base["data"]["name"], cells, foot, spreads)


def _early(reader: StudyReader) -> list[tuple[str, str]]:
    """Return a line that says how many trainings are still missing, or none."""
    settings = reader.settings()
    missing = sum(map(reader.missing, settings))
    if not reader.replicated or not missing:
        return []
    done = sum(len(setting.finished) for setting in settings)
    return [("early", f"{done} of {done + missing} trainings have ended, so there is no verdict on all of them yet")]


def _mean_cell(reader: StudyReader, column: PaperColumn, setting: Setting) -> tuple[Value | str, Spread | None]:
    """Return the mean of a column over the finished trainings of a setting, and its spread."""
    cells = [_cell(reader, column, trial) for trial in setting.finished.values()]
    values = [cell for cell in cells if isinstance(cell, Value)]
    if not values:
        return cells[0], None
    spread = Spread.of([value.value for value in values])
    return Value(column.metric, spread.mean, values[0].n, values[0].protocol), spread


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
    """Return the judgement of a set of images. None if its entry is no longer in the store."""
    try:
        return Judgement.load(reader.local_folder(TrialRecord.of(trial).measured[images]))
    except (KeyError, OSError, ValueError):
        return None


def _trained(reader: StudyReader, plan: TablePlan) -> list[tuple[str, str]]:
    """Return a line for each preset: the trials that use it, its training, and the keys that were changed."""
    trials_of: dict[str, list[str]] = {}
    for name, preset in plan.presets.items():
        trials_of.setdefault(preset, []).append(name)
    lines = []
    for preset, names in trials_of.items():
        config = reader.space.resolve({VARIANT: names[0]})
        trials = f" ({', '.join(names)})" if len(trials_of) > 1 else ""
        changed = _changed(preset, plan.table.trials[names[0]].set, config)
        text = f"{preset}{trials}: {presets.describe(preset)}; {_training(config)}"
        lines.append(("ours", f"{text}; changed: {', '.join(changed)}" if changed else text))
    return lines


def _training(config: TrialConfig) -> str:
    training = config.training
    images = training.batch_size * training.accumulate
    steps = f"{training.steps:,} steps of {images} images"
    return f"T = {config.degradation['steps']}, {config.restorer.size} restorer, {steps}"


def _changed(preset: str, also: Mapping[str, Any], config: TrialConfig) -> list[str]:
    """Return the keys of a preset that the command line changed, without the split and without mere bookkeeping."""
    tree = presets.load(preset)
    for key, value in also.items():
        set_key(tree, key, value)
    before, after = dict(leaves(plain(parse_trial(tree)))), dict(leaves(plain(config)))
    before["protocol.split"] = SPLIT
    bookkeeping = {f"training.{key}" for key in TrainingConfig.BOOKKEEPING - {"steps"}}
    changed = [key for key in after if key not in bookkeeping and after[key] != before.get(key)]
    return [f"{key} = {after[key]}" for key in changed]


def _verdicts(reader: StudyReader, table: PaperTable, settings: Mapping[Any, Setting]) -> list[tuple[str, str]]:
    """Compare what the paper claims to be better, if both were measured.

    With replicates, the claims of the table are a family of comparisons of settings. Otherwise the networks are
    compared image by image.
    """
    if reader.replicated:
        return _verdicts_on_settings(reader, table, settings)
    lines = []
    for better, worse in table.claims:
        columns = [table.columns[number] for number in (better, worse)]
        chosen = [settings.get(table.trial_of(column)) for column in columns]
        found = [None if setting is None else setting.trials[0] for setting in chosen]
        judged = [
            _judgement(reader, trial, column.of) if trial else None
            for trial, column in zip(found, columns, strict=True)
        ]
        if judged[0] is not None and judged[1] is not None:
            names = (columns[0].images, columns[1].images)
            about = describe_networks(_share_network([trial for trial in found if trial is not None]))
            lines.append(("measured", f"{compare(judged[0], judged[1], columns[0].metric, names)}. {about}"))
    return lines


def _share_network(trials: Sequence[FrozenTrial]) -> bool:
    """Return True if trials use the same training."""
    return len(set(map(network_of, trials))) == 1


def _verdicts_on_settings(
    reader: StudyReader, table: PaperTable, settings: Mapping[Any, Setting]
) -> list[tuple[str, str]]:
    """Compare the settings that the paper compares, at each look of the plan that both have completed.

    As in other studies, a number of trainings that was asked for later is a further look, and shares the error.
    """
    lines, plan = [], reader.plan()
    alpha = per_comparison(ALPHA, len(table.claims))
    for claim in table.claims:
        columns = [table.columns[number] for number in claim]
        chosen = [settings.get(table.trial_of(column)) for column in columns]
        verdict: Verdict | None = None
        for look in _complete_looks(plan, chosen):
            sides = [_side(reader, column, setting, look) for column, setting in zip(columns, chosen, strict=True)]
            if sides[0] is None or sides[1] is None:
                break
            level, pair = plan.alpha_at(look, alpha), reader.spec.comparisons.pair
            new = compare_settings(sides[0], sides[1], columns[0].metric, pair=pair, alpha=level)
            verdict = later_verdict(verdict, new)
        if verdict is None:
            continue
        verdict = replace(verdict, comparisons=len(table.claims), looks=max(len(plan.counted), 1))
        names = ("", "") if columns[0].images == columns[1].images else (columns[0].images, columns[1].images)
        lines.append(("measured", verdict.sentence(*names)))
    return lines


def _complete_looks(plan: Plan, settings: Sequence[Setting | None]) -> list[int]:
    """Return the looks of a plan for which all of these settings have the trainings, and that may give a verdict."""
    least = min(0 if setting is None else len(setting.finished) for setting in settings)
    return [look for look in plan.looks if look <= least and (look in plan.counted or look == plan.looks[-1])]


def _side(reader: StudyReader, column: PaperColumn, setting: Setting | None, look: int) -> Judgeable | None:
    """Return the first trainings behind a column, as many as a look has. None if they cannot be read."""
    if setting is None:
        return None
    trainings = []
    for trial in list(setting.finished.values())[:look]:
        seed = reader.config(trial).training.seed
        try:
            trainings.append(read_training(trial, column.metric, seed, reader.local_folder, column.of))
        except (KeyError, OSError, ValueError):  # no longer in the store, or a metric without numbers for each image
            return None
    return Judgeable(column.title, tuple(trainings))

"""What a study prints before and after: what it is about to do and where it writes; its trials, and what to do next."""

from __future__ import annotations

import math
import shlex
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.table import Table
from rich.text import Text

from coldtune import tracking
from coldtune.config import parse
from coldtune.metrics import Judgement, compare
from coldtune.metrics.protocol import Protocol
from coldtune.reports.paper.text import TerminalTable, latex, markdown
from coldtune.reports.tables import COLUMNS, Column, TrialRow, markdown_table, trial_table
from coldtune.stages.reuse import saved
from coldtune.stages.trial import short_name
from coldtune.store.location import StoreAt
from coldtune.studies.designs.paper_table import described, fill
from coldtune.studies.estimate.cost import cost, trainings
from coldtune.studies.preflight.capacity import Slots
from coldtune.studies.progress.savings import not_trained
from coldtune.studies.search.sampler import PROMOTED
from coldtune.studies.spec import pruning_checks as pruning
from coldtune.studies.spec.folder import StudyFolder
from coldtune.studies.storage.backends import dashboard_command
from coldtune.studies.trials.ledger import Ledger
from coldtune.studies.trials.setup import IMPORTED, IMPORTED_FROM
from coldtune.tracking import Target

_STATES = {
    TrialState.COMPLETE: "finished",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
}

_LISTED = ("fid", "fid_direct", "nfe", "seconds_saved")
"""Metrics that MLflow's list of trials shows beside the objectives: few, since the parameters stand to their right."""


def opening(console: Console, checked: Any, ledger: Ledger, options: Any, uri: str) -> None:
    """Say what the study is about to do, and where it writes, before anything is spent."""
    space = checked.space
    varied = ", ".join(short_name(path) for path in space.config.vary)
    base = space.config.base if isinstance(space.config.base, str) else "an inline base"
    ended, again = ledger.finished(), ledger.interrupted()
    search = f"{checked.spec.search.algorithm.upper()}, seed {checked.spec.seed}"
    asks = f"{checked.trials} trials over {varied}, around {base} ({search})"
    if space.size is not None:
        listed = ", ".join(space.config.variants)
        asks = f"{space.size} variants, each once: {listed}" if space.size > 1 else f"1 variant: {listed}"
    asks += _before(checked.trials, ended, again)
    trains = f"{space.base['training']['steps']:,} steps of {space.base['training']['batch_size']} images "
    once = trainings(space, checked.dataset, checked.sources)
    trains += {None: "a trial", 1: "once, for all trials"}.get(once, f"in each of {once} trainings, for all trials")
    if space.size is not None:
        trains = cost(space, checked.dataset, checked.sources, checked.store)
    lines = [*described(checked.spec), ("asks", asks)]
    lines += [("imports", f"{study}: {said}") for study, said in ledger.study.user_attrs.get(IMPORTED, {}).items()]
    if ledger.hold is not None and (others := ledger.hold.others()):
        lines.append(("joins", ", ".join(map(str, others))))
    kept, rungs = space.config.constrain, pruning.described(checked.spec, checked.protocol.num_images)
    for path, derive in space.config.derive.items():
        share = space.feasible_share()
        lines.append(
            (
                "holds",
                f"{derive.hold} {space.targets[path]:.3g}, from which {short_name(path)} follows: the path varies, its "
                f"end does not ({share:.0%} of the space can reach it and may be asked)",
            )
        )
    lines += [
        *(("keeps", f"{name} {bound} ({space.feasible_share():.0%} of the space)") for name, bound in kept.items()),
        ("judges", f"{_objectives(ledger)} on {checked.protocol.describe()}"),
        ("trains", trains),
        *([("prunes" if checked.spec.pruning.kind != "none" else "rungs", rungs)] if rungs else []),
        ("writes", _places(checked, options.home, uri)),
    ]
    table = Table.grid(padding=(0, 2))
    for head, text in lines:
        table.add_row(Text(f"  {head}", style="dim"), Text(text))
    console.print(f"[bold]{checked.folder.name}[/]", highlight=False)
    console.print(table, highlight=False)


def _before(trials: int, ended: int, again: Sequence[int]) -> str:
    """What was done before of a study of `trials` trials; empty where nothing was."""
    if ended >= trials:
        stay = f" (interrupted ones stay as they are: {', '.join(map(str, again))})" if again else ""
        more = "they" if ended == trials else f"{ended} trials"
        return f"; {more} ended before, so none is asked{stay}"
    going_on = f", {len(again)} interrupted ({', '.join(map(str, again))}) will go on" if again else ""
    return f"; {ended} of them ended before{going_on}" if ended or again else ""


def running(console: Console, slots: Slots, context: dict[str, Any]) -> None:
    """Say how the cluster is used."""
    each = f"{slots.workers} workers each" if slots.workers > 1 else f"{slots.cpus} CPU each"
    gpus = f", {slots.gpus * slots.workers:g} GPU" if slots.gpus else ""
    where = "Ray started here" if context["own"] else "a running cluster"
    dashboard = f"; dashboard http://{context['dashboard']}" if context["dashboard"] else ""
    _line(console, "runs", f"{slots.count} at once, {each}{gpus}, on {where}{dashboard}\n", 8)


def closing(
    console: Console, folder: StudyFolder, ledger: Ledger, trials: int, command: str, target: Target, finished: bool
) -> None:
    """Print the table of trials, the best one, and the commands to look closer, to resume or to extend."""
    print_table(console, ledger)
    written = write_table(folder, ledger)
    commands = [
        ("runs in MLflow", tracking.ui_command(target.uri)),
        ("its trials", _trials_page(target, folder.name, ledger)),
        ("in Optuna", dashboard_command(folder.path, folder.start()["storage"])),
        ("look closer", f"{runner()}coldtune study show {folder.name} --home {shlex.quote(str(folder.home))}"),
        ("judge further", f"{runner()}coldtune evaluate {folder.name} --home {shlex.quote(str(folder.home))}"),
    ]
    taken = {trial.user_attrs.get(PROMOTED) for trial in ledger.trials()}
    if pruned := [t.number for t in ledger.trials() if t.state == TrialState.PRUNED and t.number not in taken]:
        promote = f"{runner()}coldtune study promote {folder.name} {pruned[-1]} --home {shlex.quote(str(folder.home))}"
        commands.append(("take further", promote))
    if ledger.spec.table is not None:
        commands.insert(0, ("the table", ", ".join(map(str, written))))
    ended = ledger.finished()
    if ledger.hold is not None and (others := ledger.hold.others()):
        console.print(f"{ended} of {trials} trials ended; goes on: {', '.join(map(str, others))}", soft_wrap=True)
    if not finished:
        console.print(f"[yellow]interrupted with {ended} of {trials} trials ended; nothing is lost[/]")
        commands.insert(0, ("resume", resume(command)))
    elif (ledger.points or math.inf) > max(trials, ended):
        more = min(max(trials, ended) + 8, ledger.points or math.inf)
        commands.append(("more trials", f"{_without(command, '--trials')} --trials {more}"))
    for head, text in commands:
        _line(console, head, text)


def gone(console: Console, why: Exception, command: str) -> None:
    """Say that the study's storage is gone, and how to resume; its table cannot be read."""
    console.print(Text(f"\n{why}; the study ends here, and nothing that it had told is lost", "red"), soft_wrap=True)
    _line(console, "resume", resume(command))


def resume(command: str) -> str:
    """What a person types to go on with a study that `command` started."""
    return command if "--resume" in shlex.split(command) else f"{command} --resume"


def _places(checked: Any, home: Path, uri: str) -> str:
    folder, store = f"studies/{checked.folder.name}", checked.store
    own = store == StoreAt.in_home(home, None)
    elsewhere = "" if own else f", finished work to {store.shown}"
    return f"{home} ({folder}{', store' if own else ''}, data){elsewhere}, runs to {tracking.shown(uri)}"


def _trials_page(target: Target, study: str, ledger: Ledger) -> str:
    metrics = dict.fromkeys([*(objective.metric for objective in ledger.spec.objectives), *_LISTED])
    minimize = ledger.spec.objective.direction == "minimize"
    return tracking.trials_page(target, study, list(ledger.space.distributions), list(metrics), minimize=minimize)


def print_table(console: Console, ledger: Ledger) -> None:
    """The table of a study's trials, the best one's place on test, and what failed; or the paper's table, filled."""
    if ledger.spec.table is not None:
        console.print(TerminalTable(fill(ledger)))
        return
    console.print(trial_table(rows(ledger), best=_best_numbers(ledger), columns=_columns(ledger)))
    best = ledger.best()
    if best is None:
        return
    for line in (_found(ledger), not_trained(ledger)):
        if line:
            console.print(line, highlight=False)
    if line := _against_runner_up(ledger, best):
        console.print(line, highlight=False)
    images = best.user_attrs.get("images", {})
    if test := ledger.study.user_attrs.get("test"):
        protocol = parse(Protocol, test["protocol"])
        shown = dict.fromkeys(["fid", ledger.spec.objective.metric, "ssim", "rmse"])
        values = ", ".join(_with_interval(key, test["metrics"]) for key in shown if key in test["metrics"])
        console.print(
            f"Trial {test['trial']}, measured once on test: {values} (N = {protocol.num_images:,}, "
            f"protocol {protocol.key[:12]})",
            highlight=False,
        )
    if images:
        _line(console, "its images", images["sampled"])
        _line(console, "its restorer", best.user_attrs["checkpoint"])


def _found(ledger: Ledger) -> str:
    """What the study's own trials found; an imported one is another study's."""
    return saved(trial.user_attrs for trial in ledger.trials() if IMPORTED_FROM not in trial.user_attrs)


def write_table(folder: StudyFolder, ledger: Ledger) -> list[Path]:
    """Write the study's table into its folder: as Markdown, one of the paper's also as LaTeX; gives the files."""
    if ledger.spec.table is None:
        found = _found(ledger)
        table = markdown_table(rows(ledger), _best_numbers(ledger), _columns(ledger))
        texts = {"table.md": table + (f"- {found}\n" if found else "")}
    else:
        filled = fill(ledger)
        texts = {"table.md": markdown(filled), "table.tex": latex(filled)}
    for name, text in texts.items():
        (folder.path / name).write_text(text)
    return [folder.path / name for name in texts]


def rows(ledger: Ledger) -> list[TrialRow]:
    """A study's trials as rows of the table."""
    interrupted = set(ledger.interrupted())
    return [_row(trial, interrupted) for trial in ledger.trials() if trial.state != TrialState.WAITING]


def runner() -> str:
    """What goes before a command of this environment: `uv run ` where uv runs this process."""
    import os

    return "uv run " if "UV" in os.environ or "UV_RUN_RECURSION_DEPTH" in os.environ else ""


def _line(console: Console, head: str, text: str, width: int = 15) -> None:
    """A heading and what may be copied from the terminal: never wrapped, never read as markup."""
    console.print(Text.assemble((f"  {head:<{width}}", "dim"), text), soft_wrap=True)


def _row(trial: FrozenTrial, interrupted: Collection[int]) -> TrialRow:
    attributes = trial.user_attrs
    metrics = dict(attributes.get("metrics", {}))
    if "fid" in metrics:
        metrics["fid_sampled"] = metrics["fid"]
        metrics["fid_reach"] = metrics["fid_high"] - metrics["fid"] if "fid_high" in metrics else None
    protocol = attributes.get("protocol")
    return TrialRow(
        number=trial.number,
        state=_state(trial, interrupted),
        params=trial.params,
        metrics=metrics,
        seconds=attributes.get("seconds"),
        note=_note(trial),
        train=_trained(attributes),
        saved=attributes.get("saved"),
        protocol=parse(Protocol, protocol) if protocol else None,
    )


def _trained(attributes: Mapping[str, Any]) -> float | str | None:
    """Seconds of a trial's own training, or that it was found."""
    seconds: float | None = attributes.get("trained")
    return "found" if seconds is None and attributes.get("found", {}).get("train") else seconds


def _note(trial: FrozenTrial) -> str:
    """Why it failed, where it was pruned, what it was promoted from."""
    reason = str(trial.user_attrs.get("reason", ""))
    if (before := trial.user_attrs.get(PROMOTED)) is not None:
        return f"promoted from trial {before}" + (f"; {reason}" if reason else "")
    return reason


def _state(trial: FrozenTrial, interrupted: Collection[int]) -> str:
    if IMPORTED_FROM in trial.user_attrs:
        return "imported"
    return "interrupted" if trial.number in interrupted else _STATES[trial.state]


def _columns(ledger: Ledger) -> Sequence[Column]:
    """The table's columns, with the objectives' where they are other ones."""
    metrics = [objective.metric for objective in ledger.spec.objectives]
    others = [metric for metric in metrics if metric not in ("fid", "ssim", "rmse", "nfe")]
    return [*COLUMNS[:-1], *(Column(metric, ("", _upper(metric)), 3) for metric in others), COLUMNS[-1]]


def _objectives(ledger: Ledger) -> str:
    return " and ".join(_upper(objective.metric) for objective in ledger.spec.objectives)


def _upper(metric: str) -> str:
    return metric.replace("_", " ").upper()


def _with_interval(metric: str, metrics: Mapping[str, float]) -> str:
    low, high = metrics.get(f"{metric}_low"), metrics.get(f"{metric}_high")
    interval = "" if low is None or high is None else f" [{low:.4g}, {high:.4g}]"
    return f"{metric.replace('_', ' ').upper()} {metrics[metric]:.4g}{interval}"


def _against_runner_up(ledger: Ledger, best: FrozenTrial) -> str:
    """The best trial against the next one on the same images; empty where there is none, or no paired interval."""
    second = ledger.best(but=best.number)
    if second is None or len(ledger.spec.objectives) > 1 or second.params == best.params:
        return ""
    try:
        folders = [ledger.recorded(trial.user_attrs["measured"]["sampled"]) for trial in (best, second)]
        a, b = (Judgement.load(folder) for folder in folders)
        names = (f"Trial {best.number}", f"trial {second.number}")
        return str(compare(a, b, ledger.spec.objective.metric, names))
    except (KeyError, OSError, ValueError):  # measured by an older version, moved, or a metric without an interval
        return ""


def _best_numbers(ledger: Ledger) -> list[int]:
    """The best trial's number; of several objectives, those of the front."""
    return [trial.number for trial in ledger.front()]


def _without(command: str, flag: str) -> str:
    words = shlex.split(command)
    kept = [
        w
        for i, w in enumerate(words)
        if not (w in (flag, "--resume") or (i and words[i - 1] == flag) or w.startswith(f"{flag}="))
    ]
    return shlex.join(kept)

"""What a study prints before it spends anything: what it asks, judges and trains, and where it writes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from coldtune import tracking
from coldtune.stages.trial import short_name
from coldtune.store.location import StoreLocation
from coldtune.studies.designs.paper_table import describe_table
from coldtune.studies.estimate.cost import count_trainings, describe_variants
from coldtune.studies.preflight.capacity import TrialResources
from coldtune.studies.progress.text import _line, _objectives
from coldtune.studies.spec.pruning_checks import describe_rungs
from coldtune.studies.storage.record import StudyRecord
from coldtune.studies.trials.ledger import Ledger


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
    once = count_trainings(space, checked.dataset, checked.sources)
    trains += {None: "a trial", 1: "once, for all trials"}.get(once, f"in each of {once} trainings, for all trials")
    if space.size is not None:
        trains = describe_variants(space, checked.dataset, checked.sources, checked.store)
    lines = [*describe_table(checked.spec), ("asks", asks)]
    lines += [("imports", f"{study}: {said}") for study, said in StudyRecord.of(ledger.study).imported.items()]
    if others := ledger.lease.others():
        lines.append(("joins", ", ".join(map(str, others))))
    kept, rungs = space.config.constrain, describe_rungs(checked.spec, checked.protocol.num_images)
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


def running(console: Console, slots: TrialResources, context: dict[str, Any]) -> None:
    """Say how the cluster is used."""
    each = f"{slots.workers} workers each" if slots.workers > 1 else f"{slots.cpus} CPU each"
    gpus = f", {slots.gpus * slots.workers:g} GPU" if slots.gpus else ""
    where = "Ray started here" if context["own"] else "a running cluster"
    dashboard = f"; dashboard http://{context['dashboard']}" if context["dashboard"] else ""
    _line(console, "runs", f"{slots.count} at once, {each}{gpus}, on {where}{dashboard}\n", 8)


def _places(checked: Any, home: Path, uri: str) -> str:
    folder, store = f"studies/{checked.folder.name}", checked.store
    own = store == StoreLocation.in_home(home, None)
    elsewhere = "" if own else f", finished work to {store.shown}"
    return f"{home} ({folder}{', store' if own else ''}, data){elsewhere}, runs to {tracking.shown(uri)}"

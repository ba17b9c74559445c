"""The output of a study before it spends anything: its trials, its protocol, its training, and where it writes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from coldtune.addresses import redact
from coldtune.stages.trial import short_name
from coldtune.store.location import StoreLocation
from coldtune.studies.designs.describe import describe_design
from coldtune.studies.designs.paper_table import describe_table
from coldtune.studies.estimate.cost import count_trainings, describe_variants
from coldtune.studies.preflight.capacity import TrialResources
from coldtune.studies.preflight.checks import Checked
from coldtune.studies.progress.text import metric_name, print_line
from coldtune.studies.space.space import Space
from coldtune.studies.spec.pruning_checks import describe_rungs
from coldtune.studies.spec.study import StudySpec
from coldtune.studies.storage.record import StudyRecord
from coldtune.studies.trials.ledger import Ledger
from coldtune.studies.trials.promotion import queued_promotions


def print_opening(console: Console, checked: Checked, ledger: Ledger, uri: str) -> None:
    """Print what the study is about to do, and where it writes.

    Args:
        uri: MLflow's tracking URI.
    """
    table = Table.grid(padding=(0, 2))
    for head, text in _lines(checked, ledger, uri):
        table.add_row(Text(f"  {head}", style="dim"), Text(text, overflow="fold"))  # an address is never cut
    console.print(Text(checked.folder.name, style="bold"))
    console.print(table, highlight=False)


def print_resources(console: Console, resources: TrialResources, own_cluster: bool, dashboard: str) -> None:
    """Print how the cluster is used.

    Args:
        own_cluster: True if this process started Ray.
        dashboard: The address of Ray's dashboard, or "" if there is no dashboard.
    """
    each = f"{resources.workers} workers each" if resources.workers > 1 else f"{resources.cpus} CPU each"
    gpus = f", {resources.gpus * resources.workers:g} GPU" if resources.gpus else ""
    cluster = "Ray started here" if own_cluster else "a running cluster"
    page = f"; dashboard http://{dashboard}" if dashboard else ""
    print_line(console, "runs", f"{resources.count} at once, {each}{gpus}, on {cluster}{page}\n", 8)


def _lines(checked: Checked, ledger: Ledger, uri: str) -> Iterator[tuple[str, str]]:
    """Yield the lines of the opening, each with its heading."""
    spec, space, protocol = checked.spec, checked.space, checked.protocol
    yield from describe_table(spec)
    yield from describe_design(spec)
    interrupted = [ledger.label(number) for number in ledger.interrupted()]
    asks = describe_asked(spec, space, checked.trials, checked.replicates)
    if ledger.replicated:
        yield "asks", f"{asks}{_trained_before(checked, ledger, interrupted)}"
    else:
        yield "asks", asks + _asked_before(checked.trials, ledger.finished(), interrupted)
    if (queued := queued_promotions(ledger)) and ledger.finished() + queued > checked.trials:
        more = f"--trials {ledger.finished() + queued}"
        yield "queued", f"{queued} promoted {'trial waits' if queued == 1 else 'trials wait'}; {more} runs what waits"
    yield from (("imports", f"{study}: {said}") for study, said in StudyRecord.of(ledger.study).imported.items())
    if others := ledger.lease.others():
        yield "joins", ", ".join(map(str, others))
    yield from _limits_of_space(space)
    objectives = " and ".join(metric_name(objective.metric) for objective in spec.objectives)
    yield "judges", f"{objectives} on {protocol.describe()}"
    yield "trains", _trains(checked)
    if rungs := describe_rungs(spec, protocol.num_images):
        yield ("prunes" if spec.pruning.kind != "none" else "rungs"), rungs
    yield "writes", _writes(checked, uri)


def describe_asked(spec: StudySpec, space: Space, trials: int, replicates: int) -> str:
    """Return what a study asks: its variants, or the keys over which it searches.

    Args:
        trials: How many trials or settings the study shall have.
        replicates: The trainings of each setting.
    """
    if space.size is not None:
        listed = ", ".join(space.config.variants)
        each = "" if replicates > 1 else ", each once"
        return f"{space.size} variants{each}: {listed}" if space.size > 1 else f"1 variant: {listed}"
    keys = list(map(short_name, space.config.varied))
    if space.config.variants:
        keys.insert(0, f"{len(space.config.variants)} variants")
    varied = ", ".join(keys) or "no key"
    base = space.config.base if isinstance(space.config.base, str) else "an inline base"
    search = f"{spec.search.algorithm.upper()}, seed {spec.seed}"
    what = "setting" if replicates > 1 else "trial"
    return f"{trials:,} {what}{'s' * (trials != 1)} over {varied}, around {base} ({search})"


def _trained_before(checked: Checked, ledger: Ledger, interrupted: Sequence[str]) -> str:
    """Return the trainings of a study with replicates, and how many of them are done already."""
    total, ended = ledger.trainings(checked.trials), ledger.ended()
    if checked.spec.race is None:
        each = f"x {ledger.replicates} trainings, seeds one after the other: {total} trainings"
    else:
        each = f"race with {checked.spec.race.first} to {ledger.replicates} trainings each: at most {total} trainings"
    text = f"; {checked.trials} settings {each}"
    if ended:
        text += f", {ended} of which ended before"
    return text + (f", {len(interrupted)} interrupted ({', '.join(interrupted)}) will go on" if interrupted else "")


def _asked_before(trials: int, ended: int, interrupted: Sequence[str]) -> str:
    """Return how much of a study of `trials` trials is done already, or "" if nothing is."""
    numbers = ", ".join(interrupted)
    if ended >= trials:
        stay = f" (interrupted ones stay as they are: {numbers})" if interrupted else ""
        before = "they" if ended == trials else f"{ended} trials"
        return f"; {before} ended before, so none is asked{stay}"
    going_on = f", {len(interrupted)} interrupted ({numbers}) will go on" if interrupted else ""
    return f"; {ended} of them ended before{going_on}" if ended or interrupted else ""


def _limits_of_space(space: Space) -> Iterator[tuple[str, str]]:
    """Yield the derived values and the constraints, with the share of the space that may be asked."""
    for path, derive in space.config.derive.items():
        yield (
            "holds",
            f"{derive.hold} {space.targets[path]:.3g}, from which {short_name(path)} follows: the path varies, its "
            f"end does not ({space.feasible_share():.0%} of the space can reach it and may be asked)",
        )
    for name, bound in space.config.constrain.items():
        yield "keeps", f"{name} {bound} ({space.feasible_share():.0%} of the space)"


def _trains(checked: Checked) -> str:
    space, dataset, sources = checked.space, checked.dataset, checked.sources
    if space.size is not None:
        return describe_variants(space, dataset, sources, checked.store, checked.computes, checked.replicates)
    training = space.base["training"]
    trainings = count_trainings(space, dataset, sources)
    if checked.replicates > 1 and trainings is not None:
        trainings *= checked.replicates
    several = f"in each of {trainings} trainings, for all trials"
    per = {None: "a trial", 1: "once, for all trials"}.get(trainings, several)
    return f"{training['steps']:,} steps of {training['batch_size']} images {per}"


def _writes(checked: Checked, uri: str) -> str:
    home, store = checked.options.home, checked.store
    in_home = store == StoreLocation.in_home(home, None)
    elsewhere = "" if in_home else f", finished work to {store.shown}"
    return (
        f"{home} (studies/{checked.folder.name}{', store' if in_home else ''}, data){elsewhere}, runs to {redact(uri)}"
    )

"""The origin and the cost of a study's numbers, and the commands that make them again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from coldtune.addresses import redact
from coldtune.config import parse
from coldtune.durations import format_work
from coldtune.environment import coldtune_command
from coldtune.reports.page.document import Fact
from coldtune.stages.compute import Compute
from coldtune.studies.progress.report.content import StudyContent
from coldtune.studies.progress.report.tables import repeat_command
from coldtune.studies.progress.savings import describe_reuse, describe_untrained_steps
from coldtune.studies.progress.table import describe_unknown_threads
from coldtune.studies.storage.record import TrialRecord, is_imported

_MORE_REPLICATES = 5


def describe_provenance(content: StudyContent) -> Iterator[Fact]:
    """Yield the code, the versions, the machines, the work and the protocol of a study."""
    trials = [trial for trial in content.reader.trials() if not is_imported(trial)]
    records = [TrialRecord.of(trial) for trial in trials]
    known = [record for record in records if record.environment]
    if any(record.metrics for record in records) and not known:
        yield Fact("commit", "not recorded, because an older version of coldtune ran the trials")
    for head, write in _ENVIRONMENT.items():
        for text, count in _counted(known, write):
            yield Fact(head, text if count == len(known) else f"{text} ({count} of {len(known)} trials)")
    computed = [record for record in records if record.computed]
    for text, count in _counted(computed, lambda record: parse(Compute, record.computed or {}, "computed").describe()):
        yield Fact("computed", text if count == len(computed) else f"{text} ({count} of {len(computed)} trials)")
    if unknown := describe_unknown_threads(content.reader):
        yield Fact("computed", unknown)
    yield from _describe_time(content, records)
    for saved in filter(None, (describe_reuse(content.reader.trials()), describe_untrained_steps(content.reader))):
        yield Fact("saved", saved)
    yield Fact("dataset", f"{content.spec.base['data']['name']}, fingerprint {content.start['fingerprint']}")
    if (protocol := find_protocol(records)) is not None:
        yield Fact("protocol", protocol.describe())
        yield Fact("protocol key", protocol.key)
    yield Fact("seed of the search", str(content.spec.seed))


def find_protocol(records: list[TrialRecord]) -> Any:
    """Return the protocol of a study's values. None if nothing was measured."""
    return next((record.judged_under for record in records if record.protocol), None)


def _describe_time(content: StudyContent, records: list[TrialRecord]) -> Iterator[Fact]:
    """Yield the device hours of a study.

    Only its training occupies several devices of a trial. A trial of an older version has the devices of the last
    start.
    """
    start = content.start
    spent = total = trained = 0.0
    started = float(start.get("gpus_per_trial") or 0.0) or float(start.get("workers") or 1)
    held = set()
    for record in records:
        training, seconds = record.effort.trained or 0.0, record.effort.seconds or 0.0
        devices = float(record.environment.get("devices") or started)
        spent += training * devices + max(seconds - training, 0.0) * min(devices, 1.0)
        total, trained = total + seconds, trained + training
        held.add(devices)
    if total:
        several = "" if held == {1.0} else f", on {' or '.join(f'{each:g}' for each in sorted(held))} devices"
        took = f"trials took {format_work(total)}, of which {format_work(trained)} training{several}"
        yield Fact("spent", f"{spent / 3600:.2f} device hours: {took}")
    if failed := sum(record.effort.seconds is None for record in map(TrialRecord.of, content.reader.failed())):
        yield Fact("spent", f"The time of {failed} failed trial{'s' * (failed > 1)} is not recorded, and not in it.")


def _counted(records: list[TrialRecord], write: Callable[[TrialRecord], str]) -> list[tuple[str, int]]:
    """Return the different texts of records with their numbers, the most frequent first."""
    counts = Counter(text for record in records if (text := write(record)))
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _versions(record: TrialRecord) -> str:
    names = ("coldtune", "torch", "python")
    return ", ".join(f"{name} {record.environment[name]}" for name in names if record.environment.get(name))


def _machine(record: TrialRecord) -> str:
    environment = record.environment
    parts = [str(environment.get("device") or ""), f"{environment['cpus']} CPUs" if environment.get("cpus") else ""]
    host = f"host {environment['host']}" if environment.get("host") else ""
    return ", ".join(filter(None, (*parts, str(environment.get("system") or ""), host)))


_ENVIRONMENT: dict[str, Callable[[TrialRecord], str]] = {
    "commit": lambda record: str(record.environment.get("commit") or ""),
    "versions": _versions,
    "hardware": _machine,
}


def list_commands(content: StudyContent) -> Iterator[Fact]:
    """Yield the command that made the study, and those that repeat its rows and look closer."""
    home, name, reader = content.folder.home, content.name, content.reader
    if command := str(content.start.get("command") or ""):
        yield Fact("made by", redact(command), command=True)
    if content.ranked:
        best = content.first(content.ranked[0])
        yield Fact("repeat the best", repeat_command(content, reader.label(best.number)), command=True)
        row = "N of the trial" if not reader.replicated else "N of the setting, or N.1, N.2 of its further trainings"
        yield Fact("repeat a row", f"The same command with the number {row} behind the slash.")
    yield Fact("this page", coldtune_command("report", home, name), command=True)
    if reader.lease.others():
        yield Fact("watch it run", coldtune_command("watch", home, name), command=True)
    elif not content.complete:
        yield Fact("resume", coldtune_command("study resume", home, name), command=True)
    elif len(content.ranked) > 1 and not (
        reader.replicated or content.confirmations or len(content.spec.objectives) > 1
    ):
        flags = ("--confirm" if reader.space.size is None else "--replicates", _MORE_REPLICATES)
        yield Fact("decide", coldtune_command("study resume", home, name, flags=flags), command=True)
    for folder in content.confirmations:
        yield Fact("its confirmation", coldtune_command("report", home, folder.name), command=True)

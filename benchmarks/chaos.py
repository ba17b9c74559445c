"""Kill the processes of small studies at random instants, resume, and compare with the unbroken studies.

    uv run benchmarks/chaos.py [--kills 40] [--seed 0] [--record FILE] [--page FILE] [--scenarios tpe,random,...]

SIGKILL goes to the driver, a trial's process, a process of two that train a trial together, the raylet, the MLflow
server or PostgreSQL. Each study is killed up to `--per-study` times, resumed with the command that it prints, and
compared at its end. tests/chaos holds the checks. The script prints each step, a progress bar with rate and ETA, and
Markdown tables at the end.

A record file keeps each finished episode. After an interruption, the same command continues with the next episode.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections import Counter
from contextlib import ExitStack
from dataclasses import asdict
from datetime import date
from pathlib import Path
from random import Random
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests" / name) for name in ("chaos", "e2e", "")]

from chaos_episode import Episode, episode, unbroken  # noqa: E402
from chaos_plan import KINDS, SCENARIOS, KillChooser, Scenario  # noqa: E402
from chaos_servers import MissingError, Mlflow, Postgres  # noqa: E402
from chaos_study import Kill  # noqa: E402

from coldtune.store.provenance import git_commit, made  # noqa: E402


class Record:
    """The finished episodes in a JSON file, which is replaced as a whole after each episode."""

    def __init__(self, path: Path, seed: int) -> None:
        self.path = path
        self.tree: dict[str, Any] = {"seed": seed, "commits": [], "unbroken": {}, "episodes": []}
        if path.exists():
            self.tree = json.loads(path.read_text())

    @property
    def episodes(self) -> list[Episode]:
        trees = self.tree["episodes"]
        return [Episode(**{**tree, "kills": [Kill(**kill) for kill in tree["kills"]]}) for tree in trees]

    @property
    def kills(self) -> list[Kill]:
        return [kill for each in self.episodes for kill in each.kills]

    def add(self, done: Episode) -> None:
        self.tree["episodes"].append(asdict(done))
        self.save()

    def save(self) -> None:
        commit = git_commit()
        if commit not in self.tree["commits"]:
            self.tree["commits"].append(commit)
        scratch = self.path.with_suffix(".new")
        scratch.write_text(json.dumps(self.tree, indent=1))
        scratch.replace(self.path)


class ChaosRun:
    """A series of episodes that ends when there are enough kills."""

    def __init__(self, options: argparse.Namespace, record: Record, console: Console) -> None:
        self.options, self.record, self.console = options, record, console
        self.folder = Path(tempfile.mkdtemp(prefix="chaos"))
        self.mlflow = Mlflow(self.folder / "mlflow")
        self.postgres: Postgres | None = None
        self.scenarios = [SCENARIOS[name] for name in options.scenarios.split(",")]

    def run(self) -> None:
        with ExitStack() as stack:
            stack.callback(self.mlflow.close)
            self.mlflow.start()
            self._start_postgres(stack)
            progress = Progress(
                TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"),
                TimeElapsedColumn(), TextColumn("ETA"), TimeRemainingColumn(), console=self.console,
            )  # fmt: skip
            stack.enter_context(progress)
            task = progress.add_task("kills", total=self.options.kills, completed=len(self.record.kills), rate="")
            while len(self.record.kills) < self.options.kills:
                self._episode()
                elapsed = progress.tasks[0].elapsed or 1
                new = len(self.record.kills) - progress.tasks[0].completed
                progress.update(task, completed=len(self.record.kills), rate=f"{60 * new / elapsed:.2g}/min")

    def _start_postgres(self, stack: ExitStack) -> None:
        try:
            self.postgres = Postgres()
        except MissingError as error:
            self.console.print(f"without PostgreSQL: {error}")
            self.scenarios = [scenario for scenario in self.scenarios if not scenario.postgres]
            return
        stack.callback(self.postgres.close)
        self.postgres.start()

    def _episode(self) -> None:
        number = len(self.record.episodes)
        hits = Counter(kill.kind for kill in self.record.kills)
        chooser = KillChooser(Random(self.record.tree["seed"] * 1000 + number), hits)
        scenario = self._scenario(hits)
        wanted = self._unbroken(scenario)
        self.console.print(f"episode {number}: {scenario.name}, seed {self.record.tree['seed']}")
        most = min(self.options.per_study, self.options.kills - len(self.record.kills))
        name, folder = f"{scenario.name}-{self.folder.name}-{number}", self.folder / str(number)
        done = episode(scenario, wanted, chooser, folder, self.mlflow, self.postgres, name, most, self._say)
        self.record.add(done)
        outcome = done.trouble or ("identical" if scenario.identical else "as many trials, each ended once")
        self._say(f"{len(done.kills)} kills in {done.seconds:.0f} s: {outcome}")

    def _scenario(self, hits: Counter[str]) -> Scenario:
        """Choose, of the scenarios that can lose the kind killed least so far, the scenario that ran least."""
        ran = Counter(each.scenario for each in self.record.episodes)
        share = KillChooser(Random(0), hits).share
        least = min(share(kind) for kind in KINDS if any(kind in each.kinds for each in self.scenarios))
        short = [each for each in self.scenarios if any(share(kind) == least for kind in each.kinds)]
        return min(short, key=lambda each: ran[each.name])

    def _unbroken(self, scenario: Scenario) -> list[Any]:
        known = self.record.tree["unbroken"]
        if scenario.name not in known:
            self.console.print(f"{scenario.name}: the unbroken study first")
            name, folder = f"{scenario.name}-{self.folder.name}", self.folder / scenario.name
            known[scenario.name] = unbroken(scenario, folder, self.mlflow, self.postgres, name)
            self.record.save()
        found: list[Any] = known[scenario.name]
        return found

    def _say(self, text: str) -> None:
        self.console.print(f"  {text}", highlight=False, soft_wrap=True)


def page(record: Record, command: str) -> str:
    """Return the Markdown page: commit and machine, a table of kinds, a table of studies, and a table of kills."""
    machine, kills = made(), record.kills
    commits = ", ".join(commit[:7] for commit in record.tree["commits"])
    lines = [
        f"    {command}\n",
        f"Commit {commits}. Machine: {machine['cpus']} CPUs ({machine['device']}), Python {machine['python']}. "
        f"{len(kills)} kills in {len(record.episodes)} studies, "
        f"{sum(each.seconds for each in record.episodes) / 60:.0f} minutes.\n",
        "| killed | kills | trials ended | server down, s | until progress, s: median (longest) | failed studies |",
        "| :-- | --: | :-- | --: | --: | --: |",
        *(_kind_row(kind, record) for kind in KINDS),
        "\n| study | trials | episodes | kills | at the end |",
        "| :-- | :-- | --: | --: | :-- |",
        *(_scenario_row(name, record) for name in record.tree["unbroken"]),
        "\n| # | study | killed | trials ended | state | progress after, s |",
        "| --: | :-- | :-- | --: | :-- | --: |",
        *(
            f"| {number} | {kill.scenario} | {kill.kind} | {kill.ended} | {kill.doing} | {kill.seconds:g} |"
            for number, kill in enumerate(kills, 1)
        ),
    ]
    return "\n".join(lines)


def _kind_row(kind: str, record: Record) -> str:
    hits = [kill for kill in record.kills if kill.kind == kind]
    if not hits:
        return f"| {kind} | 0 | | | | |"
    ended = ", ".join(map(str, sorted(kill.ended for kill in hits)))
    seconds = [kill.seconds for kill in hits]
    away = f"{min(k.outage for k in hits):g} to {max(k.outage for k in hits):g}" if any(k.outage for k in hits) else ""
    wrong = sum(any(kill.kind == kind for kill in each.kills) for each in record.episodes if each.trouble)
    return (
        f"| {kind} | {len(hits)} | {ended} | {away} | {statistics.median(seconds):.1f} ({max(seconds):.1f}) | {wrong} |"
    )


def _scenario_row(name: str, record: Record) -> str:
    scenario = SCENARIOS[name]
    mine = [each for each in record.episodes if each.scenario == name]
    held = sum(not each.trouble for each in mine)
    what = "identical to the unbroken study" if scenario.identical else "as many trials, each ended once"
    kills = sum(len(each.kills) for each in mine)
    return f"| {name} | {scenario.trials} | {len(mine)} | {kills} | {held} of {len(mine)} {what} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=40, metavar="N", help="in all (default 40)")
    parser.add_argument("--per-study", type=int, default=5, metavar="N", help="at most (default 5)")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument("--record", type=Path, default=Path("chaos.json"), metavar="FILE", help="(default chaos.json)")
    parser.add_argument("--page", type=Path, metavar="FILE", help="write the Markdown here too")
    parser.add_argument("--scenarios", default=",".join(SCENARIOS), metavar="NAMES", help=f"of {', '.join(SCENARIOS)}")
    options = parser.parse_args()
    console = Console()
    record = Record(options.record, options.seed)
    console.print(f"seed {record.tree['seed']}; {len(record.kills)} kills recorded in {options.record} so far")
    ChaosRun(options, record, console).run()
    text = page(record, " ".join(["uv run benchmarks/chaos.py", *sys.argv[1:]]))
    print(text)
    if options.page:
        options.page.write_text(f"# Studies that are killed ({date.today()})\n\n{text}\n")
    wrong = [each for each in record.episodes if each.trouble]
    for each in wrong:
        console.print(f"{each.scenario}: {each.trouble}", style="red", markup=False)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()

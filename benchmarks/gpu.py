"""Try and measure the whole platform on a GPU, part by part, in order of value.

    uv run benchmarks/gpu.py --out gpu                          # everything: about 20 minutes
    uv run benchmarks/gpu.py --out gpu --budget 540             # the parts that fit into 9 minutes
    uv run benchmarks/gpu.py --out gpu --skip-done              # another day: the parts without a result
    uv run benchmarks/gpu.py --out tried --device cpu --quick   # all its code, tiny, without a GPU

Where the packages are installed but uv is not, `python3 benchmarks/gpu.py` does the same. Each part runs in its own
process, and has a time limit. Its result goes into DIR/results.json as soon as it ends, and DIR/report.md is written
anew. DIR/log.txt has the output of every part. A part that fails writes its traceback as its result, and the others go
on. Parts that measure no time run side by side. The card's settings stay as they are.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
RESULTS, REPORT, LOG = "results.json", "report.md", "log.txt"
_LOGGED = 20_000  # characters of a part's output that are kept
_LEAST = 20.0  # seconds that a part needs to be worth a start


@dataclass(frozen=True)
class Part:
    """A part of the benchmark.

    Attributes:
        question: The question that it answers.
        seconds: The time that it takes on an H100.
        limit: The benchmark ends the part after this time.
        alone: It measures time, so nothing else may run beside it.
    """

    question: str
    seconds: float
    limit: float
    alone: bool = False


PARTS = {
    "memory": Part("If CUDA runs out of memory, does the batch halve, and does the loss stay?", 50, 150),
    "judging": Part("Does judging on the GPU equal judging on the CPU?", 45, 150),
    "equal": Part("Does compiled equal eager, and resumed uninterrupted?", 100, 240),
    "base": Part("How fast is a training: `base` at 32 px, `micro` at 16 px?", 180, 300, alone=True),
    "sampling": Part("How fast is Algorithm 2?", 100, 200, alone=True),
    "sweeps": Part("Do studies with four trials on a GPU run, survive a kill, and record all runs?", 130, 270),
    "nccl": Part("Does a training through Ray Train with NCCL equal that of a single process?", 60, 180),
    "leak": Part("How much GPU memory does a process keep after each of many trials?", 80, 180),
    "quality": Part("Does the fast way give equal FIDs?", 120, 240),
    "packing": Part("How many trainings an hour does a card give, with how many processes?", 150, 270, alone=True),
    "rest": Part("How fast are the other trainings?", 120, 560, alone=True),
}


@dataclass
class Running:
    """A part that was started."""

    name: str
    process: subprocess.Popen[bytes]
    result: Path
    output: Path
    limit: float
    started: float = field(default_factory=time.monotonic)

    def end(self) -> dict[str, Any]:
        """End the part if it still runs, and return its result."""
        seconds = time.monotonic() - self.started
        late = self.process.poll() is None
        if late:
            _end_group(self.process, signal.SIGTERM, 5)
        _end_group(self.process, signal.SIGKILL, 10)
        try:
            result = json.loads(self.result.read_text())
        except (OSError, ValueError):
            tail = self.output.read_text(errors="replace")[-1500:]
            result = {"verdict": "failed", "markdown": f"```\n{tail}\n```", "data": {}}
        if late:
            result["verdict"] = f"stopped after {seconds:.0f} s, its limit is {self.limit:.0f} s"
        return {**result, "seconds": round(seconds, 1)}


def _end_group(process: subprocess.Popen[bytes], number: int, patience: float) -> None:
    """Send a signal to the processes of a part, which is the leader of its own group, and wait for the leader."""
    try:
        os.killpg(process.pid, number)
    except (ProcessLookupError, PermissionError):
        return
    try:
        process.wait(patience)
    except subprocess.TimeoutExpired:
        return


class Benchmark:
    """The results so far, and their folder."""

    def __init__(self, options: argparse.Namespace, scratch: Path) -> None:
        self.options, self.scratch, self.out = options, scratch, options.out
        self.out.mkdir(parents=True, exist_ok=True)
        self.begun = time.monotonic()
        self.results: dict[str, dict[str, Any]] = {}
        self.commands: list[str] = []
        if (self.out / RESULTS).exists():
            found = json.loads((self.out / RESULTS).read_text())
            self.results, self.commands = found["parts"], found["commands"]
        self.commands.append(shlex.join(["uv", "run", "benchmarks/gpu.py", *sys.argv[1:]]))

    def left(self) -> float:
        """Return the seconds that are left."""
        return self.options.budget - (time.monotonic() - self.begun) if self.options.budget else float("inf")

    def run(self) -> None:
        wanted = [name for name in PARTS if name in (self.options.parts or PARTS)]
        if self.options.skip_done:
            wanted = [name for name in wanted if not done(self.results.get(name, {}))]
        for group in groups(wanted, self.options.at_once):
            self.write()
            self._run_group(group)
        self.write()

    def _run_group(self, group: Sequence[str]) -> None:
        fitting = [name for name in group if self.left() > max(_LEAST, PARTS[name].seconds)]
        slower = 4 if self.options.device == "cpu" else 1
        running = [self._start(name, min(slower * PARTS[name].limit, self.left())) for name in fitting]
        try:
            while running:
                for part in list(running):
                    over = time.monotonic() - part.started > part.limit
                    if part.process.poll() is None and not over:
                        continue
                    running.remove(part)
                    self._keep(part, part.end())
                time.sleep(0.2)
        finally:
            for part in running:
                self._keep(part, part.end())

    def _start(self, name: str, limit: float) -> Running:
        print(f"{self._clock()} {name}: begins, at most {limit:.0f} s", flush=True)
        result, output = self.scratch / f"{name}.json", self.scratch / f"{name}.txt"
        command = [sys.executable, str(HERE / "gpu_parts.py"), name, "--result", str(result)]
        command += ["--scratch", str(self.scratch), "--seconds", f"{limit:.0f}"]
        command += ["--device", self.options.device] if self.options.device else []
        command += ["--quick"] if self.options.quick else []
        path = os.pathsep.join(filter(None, [str(HERE.parent / "platform"), os.environ.get("PYTHONPATH")]))
        env = os.environ | {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
        for key, folder in {"TORCHINDUCTOR_CACHE_DIR": "inductor", "TRITON_CACHE_DIR": "triton"}.items():
            env.setdefault(key, str(self.scratch / folder))
        if self.options.commit:
            env["COLDTUNE_BENCHMARK_COMMIT"] = self.options.commit
        with output.open("wb") as out:
            process = subprocess.Popen(command, env=env, stdout=out, stderr=out, start_new_session=True)
        return Running(name, process, result, output, limit)

    def _keep(self, part: Running, result: dict[str, Any]) -> None:
        self.results[part.name] = result
        print(f"{self._clock()} {part.name}: {result['verdict']} ({result['seconds']:.0f} s)", flush=True)
        if result["verdict"].startswith(("failed", "stopped")):
            print(result["markdown"][-1500:], flush=True)
        with (self.out / LOG).open("a") as log:
            log.write(f"=== {part.name}\n{part.output.read_text(errors='replace')[-_LOGGED:]}\n")
        self.write()

    def _clock(self) -> str:
        return f"[{time.monotonic() - self.begun:5.0f} s]"

    def write(self) -> None:
        """Write the results and the report."""
        ordered = {name: self.results[name] for name in PARTS if name in self.results}
        fresh = self.out / f".{RESULTS}"
        fresh.write_text(json.dumps({"commands": self.commands, "parts": ordered}, indent=1))
        fresh.replace(self.out / RESULTS)
        (self.out / REPORT).write_text(report(self.results, self.commands))


def groups(wanted: Sequence[str], at_once: int) -> list[list[str]]:
    """Return the parts in their order, those together that may run side by side."""
    made: list[list[str]] = []
    for name in wanted:
        together = made and not PARTS[name].alone and not PARTS[made[-1][-1]].alone and len(made[-1]) < at_once
        if together:
            made[-1].append(name)
        else:
            made.append([name])
    return made


def done(result: Mapping[str, Any]) -> bool:
    return bool(result) and not result["verdict"].startswith(("failed", "stopped", "skipped"))


def report(results: Mapping[str, Mapping[str, Any]], commands: Sequence[str]) -> str:
    """Return the page of all results."""
    facts = {fact for result in results.values() for fact in result.get("facts", [])}
    facts |= {f"- Command: `{command}`" for command in commands}
    lines = [
        "# The platform on a GPU\n",
        *sorted(facts),
        "",
        "| part | question | result | seconds |",
        "|:--|:--|:--|--:|",
    ]
    for name, part in PARTS.items():
        result = results.get(name)
        verdict, seconds = (result["verdict"], f"{result['seconds']:.0f}") if result else ("not measured", "")
        lines.append(f"| `{name}` | {part.question} | {verdict} | {seconds} |")
    for name in PARTS:
        if name in results:
            lines += [f"\n## {name}: {PARTS[name].question}\n", results[name]["markdown"].strip()]
    return "\n".join(lines) + "\n"


def names(text: str) -> list[str]:
    found = [name.strip() for name in text.split(",") if name.strip()]
    if unknown := [name for name in found if name not in PARTS]:
        raise argparse.ArgumentTypeError(f"no part {', '.join(unknown)}; allowed are {', '.join(PARTS)}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the results")
    parser.add_argument("--parts", type=names, metavar="A,B", help=f"default: {','.join(PARTS)}")
    parser.add_argument("--skip-done", action="store_true", help="leave out parts that have a result in DIR")
    parser.add_argument("--budget", type=float, metavar="SECONDS", help="start no part that does not fit")
    parser.add_argument("--device", help="default: the GPU if there is a GPU")
    parser.add_argument("--quick", action="store_true", help="tiny versions of all parts, to try their code")
    parser.add_argument("--at-once", type=int, help="parts that may run side by side (default 4, on a CPU 1)")
    parser.add_argument("--commit", help="the commit, if this folder is no git checkout")
    options = parser.parse_args()
    options.at_once = options.at_once or (1 if options.device == "cpu" else 4)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # then the running parts are ended too
    scratch = Path(tempfile.mkdtemp(prefix="ctgpu", dir="/tmp"))  # the paths of Ray's sockets must be short
    try:
        Benchmark(options, scratch).run()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    text = (options.out / REPORT).read_text()
    print(text, "\nIn short:\n", *(line for line in text.splitlines() if line.startswith("| `")), sep="\n")


if __name__ == "__main__":
    main()

"""Time training steps on several CPU threads, alone and beside a busy process, if waiting threads spin or sleep.

    uv run benchmarks/threads.py [--threads 2] [--steps 40] [--rounds 7]

Threads of torch share the work of an operation and wait for each other at its end. By default a waiting thread spins.
If another process needs the core, a spinning thread takes it from the thread that still works. With
OMP_WAIT_POLICY=passive a waiting thread sleeps.

Each way is a process that waits for its turn. In every round each process takes the same number of steps, first alone
and then beside a process that computes without end. The script prints the median time of a step, the ratio of both, and
a hash of the trained weights, which must be equal for all ways.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

WAYS = {
    "spinning (default)": {},
    "spinning shorter (GOMP_SPINCOUNT=100000)": {"GOMP_SPINCOUNT": "100000"},
    "spinning briefly (GOMP_SPINCOUNT=1000)": {"GOMP_SPINCOUNT": "1000"},
    "sleeping (OMP_WAIT_POLICY=passive)": {"OMP_WAIT_POLICY": "passive"},
    "spinning, each on its core (OMP_PROC_BIND=true)": {"OMP_PROC_BIND": "true"},
}
SIZE, SHAPE, SEVERITIES, BATCH = "micro", (1, 16, 16), 20, 32


def child(threads: int) -> None:
    """Take as many steps as each line of the input says, and print the seconds and a hash of the weights."""
    import torch

    from coldtune.diffusion import build_restorer
    from coldtune.training.device import use_threads

    use_threads(threads)
    torch.manual_seed(0)
    network = build_restorer({"size": SIZE}, SHAPE, SEVERITIES).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)
    for line in sys.stdin:
        started = time.perf_counter()
        for _ in range(int(line)):
            x0 = torch.rand(BATCH, *SHAPE)
            t = torch.randint(1, SEVERITIES + 1, (BATCH,))
            loss = (network(x0, t) - x0).abs().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        seconds = time.perf_counter() - started
        weights = b"".join(value.detach().numpy().tobytes() for value in network.state_dict().values())
        print(seconds, hashlib.sha256(weights).hexdigest()[:12], flush=True)


@contextlib.contextmanager
def busy() -> Iterator[None]:
    """Run a process that computes without end during the block."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def start(threads: int, environment: dict[str, str]) -> subprocess.Popen[str]:
    """Start the process of a way."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_", "KMP_"))}
    command = [sys.executable, __file__, "--child", "--threads", str(threads)]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**inherited, **environment}
    )


def take_turn(process: subprocess.Popen[str], steps: int) -> tuple[float, str]:
    """Let a process take its steps, and return the milliseconds of a step and the hash of its weights."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{steps}\n")
    process.stdin.flush()
    seconds, weights = process.stdout.readline().split()
    return 1000 * float(seconds) / steps, weights


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2, help="of each process (default 2)")
    parser.add_argument("--steps", type=int, default=40, help="of a turn (default 40)")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each process (default 7)")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.threads)
        return
    from coldtune.store.provenance import git_commit, made

    machine = made()
    print(f"Commit {git_commit()}; {machine['cpus']} CPUs ({machine['device']}), load {os.getloadavg()[0]:.1f}.\n")
    processes = {way: start(options.threads, environment) for way, environment in WAYS.items()}
    times: dict[tuple[str, bool], list[float]] = {(way, beside): [] for way in WAYS for beside in (False, True)}
    weights: dict[str, str] = {}
    for process in processes.values():
        take_turn(process, 3)
    for _ in range(options.rounds):
        for beside in (False, True):
            with busy() if beside else contextlib.nullcontext():
                for way, process in processes.items():
                    taken, weights[way] = take_turn(process, options.steps)
                    times[way, beside].append(taken)
    print(
        f"| waiting threads, {options.threads} of them | alone, ms a step | beside a busy process | ratio | weights |"
    )
    print("| :-- | --: | --: | --: | :-- |")
    for way, process in processes.items():
        process.kill()
        process.wait()
        alone, beside = (statistics.median(times[way, each]) for each in (False, True))
        print(f"| {way} | {alone:.2f} | {beside:.2f} | {beside / alone:.2f} | {weights[way]} |")


if __name__ == "__main__":
    main()

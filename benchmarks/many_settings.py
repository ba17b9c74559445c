"""Judge many settings of a sampler from one training, in one study and one store, and time the parts of a setting.

    uv run benchmarks/many_settings.py --settings 2000 [--images 16] [--image-size 16] [--dir DIR | --home HOME]

With --home, the study and its store stay, and the same command goes on with them.

The restorer is trained once for a few steps, and each setting samples and judges a few images, so that bookkeeping is a
visible part. Ray has no part in it: this process asks the study, runs the stages and tells the outcome. The rows are
windows of equally many settings. If the time of a setting and the memory grow, they show it.

- ask, tell: the study in its journal file, with the search "random".
- stages: finding the training, sampling, judging, and writing to the store, all in this process.
- CPU: the processor time of this process. It says more than the wall time if other work runs on the machine.
- store: the files and bytes in the store at the end of the window.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import torch
import yaml
from bookkeeping import resident_mb

from coldtune.config import plain
from coldtune.data import prepare
from coldtune.stages.chain import Chain
from coldtune.store.provenance import git_commit, made
from coldtune.store.store import Store
from coldtune.studies.space.validate import build_space
from coldtune.studies.spec.build import build_spec
from coldtune.studies.storage.backends import open_storage
from coldtune.studies.storage.outcome import TrialOutcome
from coldtune.studies.trials.ledger import open_ledger
from coldtune.training.loop import train

LEAST_FREE = 3 << 30  # bytes on the disk
SPACE = {
    "base": "digits-quick",
    "vary": {
        "sampler.rho": {"low": 1.0, "high": 100.0, "log": True},
        "sampler.num_steps": {"low": 2, "high": 4},
        "sampler.clamp": {"choices": [False, True]},
    },
    "objective": {"metric": "kid", "direction": "minimize"},
    "search": {"algorithm": "random"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--settings", type=int, default=2_000, help="how many settings (default 2,000)")
    parser.add_argument("--images", type=int, default=16, help="images that judge a setting (default 16)")
    parser.add_argument("--image-size", type=int, default=16, help="side of an image in pixels (default 16)")
    parser.add_argument("--windows", type=int, default=10, help="rows of the table (default 10)")
    parser.add_argument("--home", type=Path, help="where the study and the store stay, to be continued")
    parser.add_argument("--dir", type=Path, help="where the study and the store are written (default: a temporary one)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    machine = made()
    print(
        f"Commit {git_commit()}; {machine['cpus']} CPUs ({machine['device']}), torch {machine['torch']}.\n", flush=True
    )
    with ExitStack() as stack:
        home = options.home
        if home is None:
            home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="settings", dir=options.dir)))
        home.mkdir(parents=True, exist_ok=True)
        judge(options.settings, options.images, home, options.image_size, options.windows)


def judge(count: int, images: int, home: Path, image_size: int = 16, windows: int = 10) -> None:
    """Judge settings until the study has `count`, and print a row for each window."""
    file = home / "space.yaml"
    file.write_text(yaml.safe_dump(SPACE))
    small = [
        f"data.image_size={image_size}",
        "training.steps=10",
        f"protocol.num_images={images}",
        "sampler.schedule=rho",
    ]
    small.append("sampler.num_steps=3")
    spec = build_spec("many-settings", file, settings=small)
    dataset = prepare(spec.base["data"], home, progress=False)
    space = build_space(spec.space, spec.base, dataset.image_shape)
    store = Store(home / "store")
    (home / "study").mkdir(exist_ok=True)
    ledger = open_ledger("many-settings", spec, space, open_storage(home / "study"))
    print("| settings | a setting, ms | CPU, ms | ask | stages | tell | memory, MB | files | store, MB |")
    print("| --: " * 9 + "|", flush=True)
    done: int = ledger.finished()
    for window in range(windows):
        until = count * (window + 1) // windows
        if until <= done:
            continue
        spent: Counter[str] = Counter()
        first, started, begun = done, time.perf_counter(), time.process_time()
        while done < until:
            if done % 100 == 0 and shutil.disk_usage(home).free < LEAST_FREE:
                raise SystemExit(f"stopped after {done:,} settings, because the disk of {home} is nearly full")
            at = [time.perf_counter()]
            request = ledger.ask()
            assert request is not None
            at.append(time.perf_counter())
            outcome = Chain(request.config, dataset, store).run(train, lambda *_: None)
            at.append(time.perf_counter())
            ledger.complete(
                request.number,
                TrialOutcome(
                    metrics=dict(outcome.metrics),
                    protocol=plain(outcome.protocol),
                    images={name: str(path) for name, path in outcome.images.items()},
                    measured={name: str(path) for name, path in outcome.measured.items()},
                    checkpoint=str(outcome.checkpoint),
                ),
            )
            at.append(time.perf_counter())
            for part, a, b in zip(("ask", "stages", "tell"), at, at[1:], strict=False):
                spent[part] += b - a
            done += 1
        each = 1000 / max(done - first, 1)
        parts = " | ".join(f"{each * spent[part]:.1f}" for part in ("ask", "stages", "tell"))
        whole, used = each * (time.perf_counter() - started), each * (time.process_time() - begun)
        files, size = measure(store.root)
        print(f"| {first:,} to {done:,} | {whole:.1f} | {used:.1f} | {parts} | {resident_mb():.0f} ", end="")
        print(f"| {files:,} | {size / 2**20:.0f} |", flush=True)


def measure(folder: Path) -> tuple[int, int]:
    """Return the number of files under a folder, and their bytes."""
    sizes = [(Path(place) / name).stat().st_size for place, _, names in os.walk(folder) for name in names]
    return len(sizes), sum(sizes)


if __name__ == "__main__":
    main()

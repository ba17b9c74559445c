"""Find out when the FIDs of samplers on the digits have the order of the paper's table 6.

    uv run benchmarks/sampler_order.py --seeds 0 1 2 --steps 200 300 400 500 600 800

The order is Algorithm 2 < direct < Algorithm 1. The script trains the preset's restorer with each seed, stops at each
number of steps, and measures all three samplers on the same images. A longer training continues the shorter training,
so each seed costs only its longest training. The result is a Markdown table.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch

from coldtune import presets
from coldtune.data import DataConfig, prepare
from coldtune.stages.chain import Chain
from coldtune.stages.trial import parse_trial
from coldtune.store.provenance import git_commit
from coldtune.store.store import Store
from coldtune.training.loop import train


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--steps", type=int, nargs="+", default=[200, 400, 800])
    parser.add_argument("--size", default="micro")
    parser.add_argument("--start", type=float, default=0.5, help="sigma.start: a larger one blurs more")
    options = parser.parse_args()
    torch.set_num_threads(1)
    home = Path(tempfile.mkdtemp(prefix="sampler-order-"))
    dataset = prepare(DataConfig(), home, progress=False)
    print(f"commit {git_commit()}, preset digits-quick, restorer {options.size}, sigma.start {options.start}\n")
    print("| seed | steps | FID direct | FID Algorithm 2 | FID Algorithm 1 | RMSE direct | RMSE Algorithm 2 | order |")
    print("|--:|--:|--:|--:|--:|--:|--:|:--|")
    for seed in options.seeds:
        for steps in sorted(options.steps):
            tree = presets.load("digits-quick")
            tree["training"] |= {"steps": steps, "seed": seed, "validate_every": 0}
            tree["restorer"]["size"] = options.size
            tree["degradation"]["sigma"]["start"] = options.start
            m = Chain(parse_trial(tree), dataset, Store(home / "store")).run(train, lambda *_: None).metrics
            named = {"2": m["fid"], "direct": m["fid_direct"], "1": m["fid_naive"]}
            order = " < ".join(sorted(named, key=lambda name: named[name]))
            values = (m["fid_direct"], m["fid"], m["fid_naive"], m["rmse_direct"], m["rmse"])
            shown = " | ".join(f"{value:.3f}" for value in values)
            print(f"| {seed} | {steps} | {shown} | {order} |", flush=True)


if __name__ == "__main__":
    main()

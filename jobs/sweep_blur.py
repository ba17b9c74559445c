"""How should blur grow? Search its schedule and rate, T, the kernel and the sampler at a fixed end, judged by FID.

    uv run jobs/sweep_blur.py                                    # scikit-learn's digits on this machine, minutes
    uv run jobs/sweep_blur.py --generate                         # of generation: the blur and the noise that breaks x_T
    uv run jobs/sweep_blur.py --dataset mnist --data-dir DATA --trials 40 --gpus-per-trial 0.5
    ray job submit --working-dir . -- python jobs/sweep_blur.py  # the same on a cluster

The same command again resumes; a larger --trials extends. What varies, and where: search_spaces/blur.yaml,
and search_spaces/blur-generation.yaml for --generate.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "platform"))  # a submitted copy of the repository runs its own code, installed or not

from coldtune.cli.job import main  # noqa: E402

if __name__ == "__main__":
    spaces = ROOT / "search_spaces"
    main("sweep_blur", spaces / "blur.yaml", __doc__, generate=spaces / "blur-generation.yaml")

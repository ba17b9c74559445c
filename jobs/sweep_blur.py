"""How should blur grow? Search its schedule and rate, T, the kernel and the sampler at a fixed end, judged by FID.

    uv run jobs/sweep_blur.py                                    # scikit-learn's digits on this machine, minutes
    uv run jobs/sweep_blur.py --generate                         # generation: also search the noise that breaks x_T
    uv run jobs/sweep_blur.py --dataset mnist --data-dir DATA --trials 40 --gpus-per-trial 0.5
    ray job submit --working-dir . -- python jobs/sweep_blur.py  # the same on a cluster

The best setting of a search may be best by luck. So the best three settings and the base are then trained 4 times each
with new seeds, and judged on test. `--confirm 0` leaves that out.

The same command resumes the study, and a larger --trials extends it. The search space is search_spaces/blur.yaml, or
search_spaces/blur-generation.yaml with --generate.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# A copy that was submitted to a cluster runs its own code, whether coldtune is installed there or not.
sys.path.insert(0, str(ROOT / "platform"))

from coldtune.cli.job import main  # noqa: E402

if __name__ == "__main__":
    spaces = ROOT / "search_spaces"
    main("sweep_blur", spaces / "blur.yaml", __doc__, generate=spaces / "blur-generation.yaml", confirm=4)

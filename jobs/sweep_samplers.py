"""Which sampler, in how few steps? 24 settings on one restorer, which is trained once; FID and NFE at once.

    uv run jobs/sweep_samplers.py                                    # scikit-learn's digits on this machine, minutes
    uv run jobs/sweep_samplers.py --set training.steps=2000          # the same question of a better restorer
    ray job submit --working-dir . -- python jobs/sweep_samplers.py  # the same on a cluster

The same command again resumes. What varies, and where: search_spaces/samplers.yaml.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "platform"))  # a submitted copy of the repository runs its own code, installed or not

from coldtune.cli.job import main  # noqa: E402

if __name__ == "__main__":
    main("sweep_samplers", ROOT / "search_spaces" / "samplers.yaml", __doc__, trials=24)

"""How should the restorer be trained? Search the optimiser's settings at a fixed number of steps, judged by FID.

    uv run jobs/sweep_training.py                                    # scikit-learn's digits on this machine, minutes
    uv run jobs/sweep_training.py --trials 40 --set training.steps=2000 rungs.steps='[500, 1000]'
    uv run jobs/sweep_training.py --set pruning.kind=none            # run every trial to its end
    ray job submit --working-dir . -- python jobs/sweep_training.py  # the same on a cluster

A trial that falls behind at a rung is pruned, and `coldtune study promote` continues it. The same command resumes the
study, and a larger --trials extends it. The search space with its rungs is search_spaces/training.yaml.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# A copy that was submitted to a cluster runs its own code, whether coldtune is installed there or not.
sys.path.insert(0, str(ROOT / "platform"))

from coldtune.cli.job import main  # noqa: E402

if __name__ == "__main__":
    main("sweep_training", ROOT / "search_spaces" / "training.yaml", __doc__)

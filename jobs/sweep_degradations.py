"""Which degradation generates best? Blur, noise, masks and downsampling, each from its own prior, judged by FID.

    uv run jobs/sweep_degradations.py                                    # scikit-learn's digits on this machine
    uv run jobs/sweep_degradations.py --trials 60 --gpus-per-trial 0.5 --set training.steps=20000
    ray job submit --working-dir . -- python jobs/sweep_degradations.py  # the same on a cluster

The same command resumes the study, and a larger --trials extends it. The search space is
search_spaces/degradations.yaml.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# A copy that was submitted to a cluster runs its own code, whether coldtune is installed there or not.
sys.path.insert(0, str(ROOT / "platform"))

from coldtune.cli.job import main  # noqa: E402

if __name__ == "__main__":
    main("sweep_degradations", ROOT / "search_spaces" / "degradations.yaml", __doc__)

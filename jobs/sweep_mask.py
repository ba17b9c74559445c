"""How should a mask grow? Search T, the step of beta and the sampler, while the share of the image left at T is fixed.

    uv run jobs/sweep_mask.py                                    # scikit-learn's digits on this machine, minutes
    uv run jobs/sweep_mask.py --dataset mnist --data-dir DATA --gpus-per-trial 0.5 \\
        --set data.image_size=32 degradation.beta.start=2.77971
    ray job submit --working-dir . -- python jobs/sweep_mask.py  # the same on a cluster

The same command resumes the study, and a larger --trials extends it. The search space is search_spaces/mask.yaml.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# A copy that was submitted to a cluster runs its own code, whether coldtune is installed there or not.
sys.path.insert(0, str(ROOT / "platform"))

from coldtune.cli.job import main  # noqa: E402

if __name__ == "__main__":
    main("sweep_mask", ROOT / "search_spaces" / "mask.yaml", __doc__)

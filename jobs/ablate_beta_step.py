"""How fast should a mask grow? Several steps of beta, with the same share of the image left at t = T.

    uv run jobs/ablate_beta_step.py                                    # scikit-learn's digits on this machine
    uv run jobs/ablate_beta_step.py --replicates 10                    # more trainings of each
    uv run jobs/ablate_beta_step.py --dataset mnist --data-dir DATA \\
        --set data.image_size=32 degradation.beta.start=2.77971
    ray job submit --working-dir . -- python jobs/ablate_beta_step.py  # the same on a cluster

The same command resumes the study. Its arms are in search_spaces/ablations/beta-step.yaml.
docs/ablations.md says how to read the result.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# A copy that was submitted to a cluster runs its own code, whether coldtune is installed there or not.
sys.path.insert(0, str(ROOT / "platform"))

from coldtune.cli.job import main  # noqa: E402

if __name__ == "__main__":
    main("ablate_beta_step", ROOT / "search_spaces" / "ablations" / "beta-step.yaml", __doc__)

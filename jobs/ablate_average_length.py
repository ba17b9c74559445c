"""How long should the average of the weights be? Nine lengths from the snapshots of one training.

    uv run jobs/ablate_average_length.py                                    # scikit-learn's digits on this machine
    uv run jobs/ablate_average_length.py --replicates 10                    # more trainings of each
    uv run jobs/ablate_average_length.py --dataset mnist --data-dir DATA \\
        --set data.image_size=32 degradation.sigma.start=1.49618
    ray job submit --working-dir . -- python jobs/ablate_average_length.py  # the same on a cluster

The same command resumes the study. Its arms are in search_spaces/ablations/average-length.yaml.
docs/ablations.md says how to read the result.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# A copy that was submitted to a cluster runs its own code, whether coldtune is installed there or not.
sys.path.insert(0, str(ROOT / "platform"))

from coldtune.cli.job import main  # noqa: E402

if __name__ == "__main__":
    main("ablate_average_length", ROOT / "search_spaces" / "ablations" / "average-length.yaml", __doc__)

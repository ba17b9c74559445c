"""How much noise breaks the symmetry of a flat x_T? Generation from blur with noise from 0 to 0.01.

    uv run jobs/ablate_noise_scale.py                                    # scikit-learn's digits on this machine
    uv run jobs/ablate_noise_scale.py --replicates 10                    # more trainings of each
    uv run jobs/ablate_noise_scale.py --dataset mnist --data-dir DATA \\
        --set data.image_size=32 degradation.kernel_size=13 degradation.sigma.start=0.733846
    ray job submit --working-dir . -- python jobs/ablate_noise_scale.py  # the same on a cluster

The same command resumes the study. Its arms are in search_spaces/ablations/noise-scale.yaml.
docs/ablations.md says how to read the result.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# A copy that was submitted to a cluster runs its own code, whether coldtune is installed there or not.
sys.path.insert(0, str(ROOT / "platform"))

from coldtune.cli.job import main  # noqa: E402

if __name__ == "__main__":
    main("ablate_noise_scale", ROOT / "search_spaces" / "ablations" / "noise-scale.yaml", __doc__)

"""Where should a sampler evaluate the network if it may do so 10, 5 or 3 times only?

    uv run jobs/ablate_sampler_schedule.py                                    # scikit-learn's digits on this machine
    uv run jobs/ablate_sampler_schedule.py --replicates 10                    # more trainings of each
    uv run jobs/ablate_sampler_schedule.py --dataset mnist --data-dir DATA \\
        --set data.image_size=32 degradation.sigma.start=1.49618
    ray job submit --working-dir . -- python jobs/ablate_sampler_schedule.py  # the same on a cluster

The same command resumes the study. Its arms are in search_spaces/ablations/sampler-schedule.yaml.
docs/ablations.md says how to read the result.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# A copy that was submitted to a cluster runs its own code, whether coldtune is installed there or not.
sys.path.insert(0, str(ROOT / "platform"))

from coldtune.cli.job import main  # noqa: E402

if __name__ == "__main__":
    main("ablate_sampler_schedule", ROOT / "search_spaces" / "ablations" / "sampler-schedule.yaml", __doc__)

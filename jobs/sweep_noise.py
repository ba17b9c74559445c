"""Generation: how much noise breaks the symmetry of a flat x_T, and what becomes of hot diffusion's noise?

    uv run jobs/sweep_noise.py                                    # scikit-learn's digits on this machine, minutes
    uv run jobs/sweep_noise.py --trials 40 --set protocol.num_images=2000
    ray job submit --working-dir . -- python jobs/sweep_noise.py  # the same on a cluster

The same command again resumes; a larger --trials extends. What varies, and where: search_spaces/noise.yaml.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "platform"))  # a submitted copy of the repository runs its own code, installed or not

from coldtune.cli.job import main  # noqa: E402

if __name__ == "__main__":
    main("sweep_noise", ROOT / "search_spaces" / "noise.yaml", __doc__)

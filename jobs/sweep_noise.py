"""How should noise enter generation? Search its scale beside blur, and fixed or estimated noise in hot diffusion.

    uv run jobs/sweep_noise.py                                    # scikit-learn's digits on this machine, minutes
    uv run jobs/sweep_noise.py --trials 40 --set protocol.num_images=2000
    ray job submit --working-dir . -- python jobs/sweep_noise.py  # the same on a cluster

The same command resumes the study, and a larger --trials extends it. The search space is search_spaces/noise.yaml.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# A copy that was submitted to a cluster runs its own code, whether coldtune is installed there or not.
sys.path.insert(0, str(ROOT / "platform"))

from coldtune.cli.job import main  # noqa: E402

if __name__ == "__main__":
    main("sweep_noise", ROOT / "search_spaces" / "noise.yaml", __doc__)

"""Which sampler needs the fewest steps? Judge 24 samplers on a single restorer by FID and NFE at once.

    uv run jobs/sweep_samplers.py                                    # scikit-learn's digits on this machine, minutes
    uv run jobs/sweep_samplers.py --set training.steps=2000          # the same samplers on a better restorer
    ray job submit --working-dir . -- python jobs/sweep_samplers.py  # the same on a cluster

The restorer is trained once, because all trials share its training. The same command resumes the study. The search
space is search_spaces/samplers.yaml.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# A copy that was submitted to a cluster runs its own code, whether coldtune is installed there or not.
sys.path.insert(0, str(ROOT / "platform"))

from coldtune.cli.job import main  # noqa: E402

if __name__ == "__main__":
    main("sweep_samplers", ROOT / "search_spaces" / "samplers.yaml", __doc__, trials=24)

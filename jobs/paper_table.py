"""Fill one of the paper's tables with our own trials, and print our numbers beside those of the paper.

    uv run jobs/paper_table.py --table 1                         # deblurring of scikit-learn's digits, minutes
    uv run jobs/paper_table.py --table 4                         # generation from noise and from blur
    uv run jobs/paper_table.py --table 1 --dataset mnist --preset paper --data-dir DATA --gpus-per-trial 1

The tables are 1 to 6, and 5.3 and A.7 for the FIDs in the text of these sections. The preset `quick` is each task
scaled down, for digits, mnist and cifar10. The preset `paper` is the paper's own setting of 700,000 steps, and prints
its cost before it starts. Trainings that the store already has are not repeated, and the same command resumes. The
table is written to table.md and table.tex in the study's folder, and to MLflow.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# A copy that was submitted to a cluster runs its own code, whether coldtune is installed there or not.
sys.path.insert(0, str(ROOT / "platform"))

from coldtune.cli.paper_table import main  # noqa: E402

if __name__ == "__main__":
    main(__doc__)

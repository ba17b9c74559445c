"""Fill one of the paper's tables: its trials are trained (or found), judged, and printed beside the paper's figures.

    uv run jobs/paper_table.py --table 1                         # deblurring, on scikit-learn's digits, minutes
    uv run jobs/paper_table.py --table 4                         # generation from noise and from blur
    uv run jobs/paper_table.py --table 1 --dataset mnist --preset paper --data-dir DATA --gpus-per-trial 1

Tables 1 to 6; 5.3 and A.7 for the FIDs that the paper prints in these sections' text. The preset `quick` is each task
scaled down (digits, mnist, cifar10); `paper` is the paper's own setting (700,000 steps), and says what it will cost
before it starts. The same command again resumes. The table goes to table.md and table.tex in the study's folder, and
to MLflow.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "platform"))  # a submitted copy of the repository runs its own code, installed or not

from coldtune.cli.paper_table import main  # noqa: E402

if __name__ == "__main__":
    main(__doc__)

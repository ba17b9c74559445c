"""A job like those in jobs/, of a small study that is to be killed."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "platform"))

from coldtune.cli.job import main  # noqa: E402

if __name__ == "__main__":
    main("chaos", HERE / "space.yaml", __doc__)

"""Names for Ray, which takes only ASCII in the labels of its metrics and fails with anything else."""

from __future__ import annotations

import string
from urllib.parse import quote


def as_label(text: str) -> str:
    """Return `text` with percent-encoding for characters outside ASCII: `größe` becomes `gr%C3%B6%C3%9Fe`."""
    return text if text.isascii() else quote(text, safe=string.printable)

"""Text for HTML, and the characters that no format shows."""

from __future__ import annotations

import re
from html import escape as escape_html

# HTML forbids control characters, and UTF-8 forbids halves of surrogate pairs. The last ranges turn the direction of
# the text after them.
FORBIDDEN = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff\u202a-\u202e\u2066-\u2069]")


def escape(text: str) -> str:
    """Return a text that HTML shows as it is, in an element or in an attribute with quotes."""
    return escape_html(FORBIDDEN.sub("\ufffd", text), quote=True)

"""Text for HTML, and the characters that no format shows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import escape as escape_html

# HTML forbids control characters, and UTF-8 forbids halves of surrogate pairs. The last ranges turn the direction of
# the text after them.
FORBIDDEN = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff\u202a-\u202e\u2066-\u2069]")


def escape(text: str) -> str:
    """Return a text that HTML shows as it is, in an element or in an attribute with quotes."""
    return escape_html(FORBIDDEN.sub("\ufffd", text), quote=True)


def split_code(sentence: str) -> Iterator[tuple[str, bool]]:
    """Yield the parts of a sentence in order, and whether a part is code, which stands between two backticks."""
    for place, part in enumerate(re.split(r"`([^`\r\n]+)`", sentence)):
        if part:
            yield part, place % 2 == 1

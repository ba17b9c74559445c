"""Texts for Markdown: none makes markup or another cell."""

from __future__ import annotations

import pytest

from coldtune.reports.markdown import md, md_row


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("noise_scale=0.01 <0.001 5 & 6", "noise_scale=0.01 <0.001 5 & 6"),
        ("a|b \\ c", "a\\|b \\\\ c"),
        ("*bold* `code` $x$", "\\*bold\\* \\`code\\` \\$x\\$"),
        ("_word_ a__b", "\\_word\\_ a\\_\\_b"),
        ("<b>&lt;</b> <!-- x", "&lt;b>&amp;lt;&lt;/b> &lt;!-- x"),
        ("[a](b)", "[a]\\(b)"),
        ("one\ntwo\r\nthree\x07", "one two three "),
    ],
)
def test_md_markup_is_escaped(text: str, written: str) -> None:
    assert md(text) == written
    assert md_row([md(text)]).count(" | ") == 0

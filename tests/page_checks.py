"""Checks that every page of a report must pass."""

from __future__ import annotations

import base64
import hashlib
import itertools
import re
from collections.abc import Sequence
from html.parser import HTMLParser

VOID = {"meta", "link", "img", "br", "hr", "input"}
ADDRESSES = ("src", "href", "srcset", "action", "data", "poster", "xlink:href")
Attributes = dict[str, str]


class Page(HTMLParser):
    """A parsed page: its elements with their attributes, its text, and all that is wrong with its nesting."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, Attributes, tuple[str, ...]]] = []
        self.text: list[tuple[str, str]] = []  # the element around a text, and the text
        self.problems: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        self.problems += [f"<{name}> is not closed" for name in self._open]

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}, tuple(self._open)))
        names = [key for key, _ in attrs]
        self.problems += [f"<{tag}> has {name} twice" for name in names if names.count(name) > 1]
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}, tuple(self._open)))

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open[-1] != tag:
            self.problems.append(f"</{tag}> closes {self._open[-1:]}")
        else:
            self._open.pop()

    def handle_data(self, data: str) -> None:
        self.text.append((self._open[-1] if self._open else "", data))

    def all(self, tag: str) -> list[Attributes]:
        """Return the attributes of all elements with this tag."""
        return [attributes for name, attributes, _ in self.elements if name == tag]

    def inside(self, tag: str) -> str:
        """Return the text of all elements with this tag."""
        return "".join(text for name, text in self.text if name == tag)


def check_page(text: str) -> Page:
    """Assert that a page is well-formed, loads nothing, and can be used without a mouse and without eyes."""
    assert text.isprintable() or all(each.isprintable() or each == "\n" for each in text)
    page = Page(text)
    assert not page.problems
    _check_ids(page)
    _check_loads_nothing(page, text)
    _check_reads_aloud(page)
    return page


def _check_ids(page: Page) -> None:
    ids = [attributes["id"] for _, attributes, _ in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for tag, attributes, _ in page.elements:
        for name in ("aria-labelledby", "aria-describedby"):
            assert set(attributes.get(name, "").split()) <= set(ids), (tag, attributes)
        if attributes.get("href", "").startswith("#"):
            assert attributes["href"][1:] in ids


def _check_loads_nothing(page: Page, text: str) -> None:
    for tag, attributes, _ in page.elements:
        for name in ADDRESSES:
            address = attributes.get(name, "#")
            assert address.startswith(("#", "data:")), (tag, name, address[:80])
        assert "style" not in attributes, "the policy forbids it"
        assert not [name for name in attributes if name.startswith("on")], (tag, attributes)
    assert not {"iframe", "object", "embed", "form", "base"} & {tag for tag, _, _ in page.elements}
    style, script = page.inside("style"), page.inside("script")
    assert "url(" not in style
    assert "@import" not in style
    assert not re.search(r"fetch|XMLHttpRequest|import\(|WebSocket|innerHTML|eval", script)
    assert len(page.all("script")) == len(page.all("style")) == 1
    (policy,) = [meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none';")
    for part in (style, script):
        digest = base64.b64encode(hashlib.sha256(part.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy


def _check_reads_aloud(page: Page) -> None:
    assert [attributes.get("lang") for attributes in page.all("html")] == ["en"]
    levels = [int(tag[1]) for tag, _, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    tags = [tag for tag, _, _ in page.elements]
    assert tags.count("main") == tags.count("nav") == tags.count("header") == 1
    assert tags.index("a") < tags.index("header"), "the first link skips to the content"
    for image in page.all("img"):
        assert image["alt"].strip()
    for svg in page.all("svg"):
        assert svg.get("aria-hidden") == "true" or (svg["role"] == "img" and svg["aria-labelledby"])
    for table in page.all("table"):
        assert table is not None
    assert tags.count("caption") == tags.count("table")
    assert all(attributes.get("scope") for attributes in page.all("th"))
    for tag, attributes, _ in page.elements:
        if attributes.get("role") == "region":
            assert attributes.get("tabindex") == "0", f"<{tag}> scrolls, so a keyboard must reach it"

"""The gallery's page: an HTML file with its pictures and style inside, so that it can be moved and mailed."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

_STYLE = """
:root { color-scheme: light; --ink: #26262c; --soft: #6a6a75; --line: #e4e4ea; --paper: #fff; --back: #f6f6f8; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--ink); font: 16px/1.55 system-ui, sans-serif; }
main { max-width: 1540px; margin: 0 auto; padding: 2rem 1.5rem 4rem; }
h1 { font-size: 1.9rem; margin: 0 0 .5rem; }
h2 { font-size: 1.4rem; margin: 3rem 0 1rem; padding-bottom: .3rem; border-bottom: 2px solid var(--line); }
h3 { font-size: 1.05rem; margin: 0 0 .2rem; }
p { margin: .3rem 0; max-width: 60rem; }
nav { margin-top: 1rem; color: var(--soft); }
nav { display: flex; flex-wrap: wrap; gap: .1rem .9rem; }
nav a { color: inherit; white-space: nowrap; }
article { background: var(--paper); border: 1px solid var(--line); border-radius: 8px; padding: 1rem 1.2rem;
  margin: 0 0 1.5rem; }
code { color: var(--soft); font-size: .85rem; overflow-wrap: anywhere; }
img { display: block; max-width: 100%; height: auto; margin-top: .7rem; }
"""

_INTRO = """
<p><code>coldtune gallery</code> made this page. It shows every degradation D(x, t) of the paper on real images, and
every way back from x_T = D(x, T). Each heading names the preset with the settings. In the upper picture, the severity t
grows from left to right by steps of about equal change. The lower picture shows the iterates x_s of each sampler as s
falls to 0.</p>
<p>The restorer on the way back is exact: R(x_s, s) = x_0. So the sampler alone causes the differences between rows and
the largest error of x_0, on a scale of -1 to 1. Algorithms 1 and 2 retrace the path. If x_T was truncated to 8 bit, its
rounding error of at most 2/255 remains in Algorithm 2. If the draw is resampled, the differences between the draws
remain in Algorithm 2. The authors' loop, which is off by one, ends at another image.</p>
"""


@dataclass(frozen=True)
class Figure:
    """A picture of the page.

    Attributes:
        title: The heading. A figure with an empty title continues the figure before it.
        settings: A line of settings below the heading.
        path: The PNG file.
    """

    title: str
    settings: str
    path: Path


@dataclass(frozen=True)
class Section:
    """The figures of a source, whose images have the shape (C, H, W)."""

    name: str
    shape: tuple[int, int, int]
    figures: Sequence[Figure]


def page(sections: Sequence[Section]) -> str:
    """Return the HTML of the whole page."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>coldtune: gallery</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>Degradations and samplers</h1>{_INTRO}{''.join(_contents(section) for section in sections)}\n"
        f"{''.join(_section(section) for section in sections)}</main>\n</body>\n</html>\n"
    )


def _contents(section: Section) -> str:
    links = "".join(
        f'<a href="#{figure.path.stem}">{escape(figure.title.rpartition(": ")[2])}</a>'
        for figure in section.figures
        if figure.title
    )
    return f"<nav><strong>{escape(section.name)}</strong>{links}</nav>\n"


def _section(section: Section) -> str:
    channels, height, width = section.shape
    heading = f"{escape(section.name)}, {height}x{width} px, {'grey' if channels == 1 else 'colour'}"
    articles, body = [], ""
    for figure in section.figures:
        if figure.title and body:
            articles.append(body + "</article>\n")
            body = ""
        if figure.title:
            body += f'<article id="{figure.path.stem}">\n<h3>{escape(figure.title)}</h3>\n'
            body += f"<code>{escape(figure.settings)}</code>\n"
        body += f'<img src="data:image/png;base64,{_encoded(figure.path)}" alt="{figure.path.stem}">\n'
    return f"<h2>{heading}</h2>\n{''.join([*articles, body])}</article>\n"


def _encoded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode("ascii")

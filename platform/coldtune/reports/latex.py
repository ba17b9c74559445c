"""LaTeX: text in ASCII, rows, and tables with booktabs."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from coldtune.reports.tables import MISSING

NEEDS = r"% Needs \usepackage{booktabs}."
"""The comment above everything that has a table."""

_SPECIAL = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
# LaTeX's default font shows other signs for these.
_SPECIAL |= {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "`": r"\textasciigrave{}"}
_MINUS = re.compile(r"(?<=[\s\[])-(?=\d)|^-(?=\d)")
_SPECIAL |= {character: f"\\{character}" for character in "&%$#_{}"}
_SPECIAL |= {"—": r"\textemdash{}", "…": r"\ldots{}", "‘": "`", "’": "'", "“": "``", "”": "''"}  # noqa: RUF001
_SPECIAL |= {"±": r"$\pm$", "×": r"$\times$", "·": r"$\cdot$", "≤": r"$\le$", "≥": r"$\ge$", "≈": r"$\approx$"}  # noqa: RUF001
_SPECIAL |= {"∞": r"$\infty$", "→": r"$\to$", "↓": r"$\downarrow$", "↑": r"$\uparrow$", "°": r"$^\circ$", "ß": r"\ss{}"}
_SPECIAL |= {"★": r"$\star$", "−": "$-$", "²": "$^2$", "³": "$^3$", "µ": r"$\mu$", MISSING: MISSING}  # noqa: RUF001
_GREEK = {"alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu", "nu"}
_GREEK |= {"xi", "pi", "rho", "sigma", "tau", "upsilon", "phi", "chi", "psi", "omega", "Gamma", "Delta", "Theta"}
_GREEK |= {"Lambda", "Xi", "Pi", "Sigma", "Upsilon", "Phi", "Psi", "Omega"}
_ACCENTS = {"\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0304": "=", "\u0306": "u", "\u0307": "."}
_ACCENTS |= {"\u0308": '"', "\u030a": "r", "\u030b": "H", "\u030c": "v", "\u0327": "c"}


def latex_line(cells: Sequence[str]) -> str:
    """Return a row of a LaTeX table. The cells are LaTeX already."""
    return f"{' & '.join(cells)} \\\\"


def latex_table(
    layout: str,
    heads: Sequence[str],
    body: Sequence[str],
    notes: Sequence[str] = (),
    *,
    caption: str = "",
    settings: Sequence[str] = (r"\small",),
) -> list[str]:
    r"""Return the lines of a LaTeX float with a table. The document needs `\usepackage{booktabs}`.

    All texts are LaTeX already (`tex`).

    Args:
        layout: The columns, for example "lrr".
        heads: The rows above the first rule.
        body: The rows below it.
        notes: The paragraphs below the table.
        caption: The caption, or "".
        settings: The lines before the table, for example its label and the size of its font.
    """
    below = [r"\par\smallskip", r"\begin{minipage}{\linewidth}", r"\footnotesize"]
    return [
        r"\begin{table}",
        r"\centering",
        *([rf"\caption{{{caption}}}"] if caption else []),
        *settings,
        rf"\begin{{tabular}}{{{layout}}}",
        r"\toprule",
        *heads,
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}",
        *([*below, *(rf"{note}\par" for note in notes), r"\end{minipage}"] if notes else []),
        r"\end{table}",
    ]


def tex(text: str) -> str:
    """Return a text for LaTeX in ASCII, with its special characters escaped."""
    escaped = "".join(map(_tex_character, " ".join(text.split())))
    # LaTeX would print two hyphens, as in `--trials`, as a dash.
    return _MINUS.sub("$-$", escaped).replace("--", "-{}-").replace(MISSING, "--")


def _tex_character(character: str) -> str:
    """Return a character for any LaTeX engine. A character that LaTeX has no command for becomes its code."""
    if character in _SPECIAL:
        return _SPECIAL[character]
    if character.isascii() and character.isprintable():
        return character
    words = unicodedata.name(character, "").replace("LAMDA", "LAMBDA").split()
    if words[:1] == ["GREEK"] and words[2:3] == ["LETTER"] and len(words) == 4:
        name = words[3].lower() if words[1] == "SMALL" else words[3].capitalize()
        if name in _GREEK:
            return rf"$\{name}$"
    base, *accents = list(unicodedata.normalize("NFD", character))
    if base.isascii() and accents and all(accent in _ACCENTS for accent in accents):
        for accent in accents:
            base = rf"\{_ACCENTS[accent]}{{{base}}}"
        return base
    return f"(U+{ord(character):04X})"

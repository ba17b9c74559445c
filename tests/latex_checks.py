"""Checks of LaTeX tables: their structure, and whether an installed LaTeX compiles them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ENGINES = ("pdflatex", "lualatex", "xelatex", "tectonic")
_ESCAPED = re.compile(r"\\[&%$#_{}]")


def check_structure(text: str) -> list[list[str]]:
    """Check a LaTeX table, and return the cells of its rows.

    Environments and braces must be balanced, each row must fill all columns, and no special character may stand alone.
    """
    assert text.isascii(), "any LaTeX engine reads it"
    lines = [line for line in text.splitlines() if not line.startswith("%")]
    open_environments: list[str] = []
    for verb, name in re.findall(r"\\(begin|end)\{(\w+)\}", "\n".join(lines)):
        if verb == "begin":
            open_environments.append(name)
        else:
            assert open_environments.pop() == name
    assert not open_environments
    plain = _ESCAPED.sub("", "\n".join(lines))
    _check_braces(plain)
    assert not re.search(r"[%#]", plain), "a comment, or a parameter"
    for line in plain.splitlines():
        outside = line.split("$")
        assert len(outside) % 2 == 1, f"a formula does not end: {line}"
        assert not re.search(r"[_^]", re.sub(r"\\\^", "", "".join(outside[::2]))), f"an index outside a formula: {line}"
    (layout,) = re.findall(r"\\begin\{tabular\}\{(\w+)\}", text)
    inside = plain.partition(r"\begin{tabular}")[2].partition(r"\end{tabular}")[0]
    assert "&" not in plain.replace(inside, ""), "a column outside the table"
    rows = [line.removesuffix("\\\\").split("&") for line in inside.splitlines() if line.endswith("\\\\")]
    for row in rows:
        spans = re.findall(r"\\multicolumn\{(\d+)\}", "&".join(row))
        assert len(row) + sum(map(int, spans)) - len(spans) == len(layout), row
    return rows


def _check_braces(text: str) -> None:
    depth = 0
    for character in text:
        depth += (character == "{") - (character == "}")
        assert depth >= 0
    assert depth == 0


def compile_document(tables: list[str], folder: Path) -> None:
    """Compile a document with the tables. The test is skipped if there is no LaTeX, or no booktabs."""
    engine = next(filter(shutil.which, ENGINES), None)
    if engine is None:
        pytest.skip(f"no LaTeX is installed ({', '.join(ENGINES)})")
    finder = shutil.which("kpsewhich")
    if engine != "tectonic" and finder and not subprocess.run([finder, "booktabs.sty"], capture_output=True).stdout:
        pytest.skip("LaTeX is installed without booktabs (in Debian: texlive-latex-recommended)")
    body = "\n\\clearpage\n".join(tables)
    document = f"\\documentclass{{article}}\n\\usepackage{{booktabs}}\n\\begin{{document}}\n{body}\n\\end{{document}}\n"
    (folder / "tables.tex").write_text(document, encoding="utf-8")
    flags = [] if engine == "tectonic" else ["-interaction=nonstopmode", "-halt-on-error"]
    done = subprocess.run([engine, *flags, "tables.tex"], cwd=folder, capture_output=True, text=True, timeout=300)
    errors = [line for line in done.stdout.splitlines() if line.startswith("!")]
    assert done.returncode == 0, errors or done.stdout[-2000:]
    assert not errors
    assert (folder / "tables.pdf").stat().st_size > 0

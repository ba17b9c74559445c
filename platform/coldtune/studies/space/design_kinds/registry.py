"""The registry of the kinds of designs. A new kind is a file, an import and a line here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from coldtune.config import parse, shorten
from coldtune.studies.space.design_kinds.add_one_in import AddOneIn
from coldtune.studies.space.design_kinds.factorial import Factorial
from coldtune.studies.space.design_kinds.fractional import Fractional
from coldtune.studies.space.design_kinds.kind import DesignKind
from coldtune.studies.space.design_kinds.leave_one_out import LeaveOneOut
from coldtune.studies.space.design_kinds.one_factor import OneFactor

KINDS: dict[str, type[DesignKind]] = {
    "add_one_in": AddOneIn,
    "factorial": Factorial,
    "fractional": Fractional,
    "leave_one_out": LeaveOneOut,
    "one_factor": OneFactor,
}
"""The kinds of designs by their name in `design.kind`."""


def build_kind(written: Any) -> DesignKind:
    """Build the kind of design that the section `design` of a space describes.

    Raises:
        ValueError: If the kind is not known, or does not have one of the keys.
    """
    allowed = ", ".join(sorted(KINDS))
    if not isinstance(written, Mapping):
        raise ValueError(f"design = {shorten(written)}: must be a mapping with `kind`; allowed: {allowed}")
    kind = written.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise ValueError(f"design.kind = {shorten(kind)}: allowed: {allowed}")
    return parse(KINDS[kind], written, "design")

"""The report for programs."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

from coldtune.reports.page.document import Report


def as_json(report: Report) -> str:
    """Return the report as JSON, in a fixed order. NaN and infinities are null, and pictures are left out."""
    tree = {"format": "coldtune report", "schema": report.schema, **_plain(report)}
    if tree["pictures"] is not None:
        for group in (tree["pictures"], *tree["pictures"]["more"]):
            for strip in (*group["strips"], *group.get("moving", ())):
                del strip["data"]
    return json.dumps(tree, indent=1, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)

"""The table of settings for a paper (LaTeX), and for other programs (CSV, Parquet)."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from coldtune.metrics.registry import DISTANCES, IMAGE_SCORES
from coldtune.reports.latex import NEEDS, latex_line, latex_table, tex
from coldtune.reports.tables import COLUMNS, REPEATED, Column, TrialRow, build_grid

_TIMES = ("train", "saved", "seconds")


def settings_latex(
    rows: Sequence[TrialRow],
    best: Sequence[int],
    columns: Sequence[Column] = COLUMNS,
    bold: Sequence[int] = (),
    notes: Sequence[str] = (),
) -> str:
    r"""Return the table of settings as a LaTeX float. The document needs `\usepackage{booktabs}`.

    The best setting, and all that cannot be told apart from it, are bold. The columns of seconds are left out.

    Args:
        rows: A row for each setting.
        best: The numbers of the best settings, which have a star.
        columns: The columns of metrics in order.
        bold: The numbers of the rows in bold. Empty: the best.
        notes: Further lines below the protocol, such as the family of the verdicts.
    """
    grid = build_grid(rows, best, columns, "setting", bold, notes)
    kept = [place for place, head in enumerate(grid.heads) if head[1] not in _TIMES]
    heads = [tex(" ".join(part for part in grid.heads[place] if part)) for place in kept]
    body = []
    for row, cells in zip(grid.rows, grid.cells, strict=True):
        texts = [tex(cells[place]) for place in kept]
        is_bold = row.number in (bold or best)
        body.append(latex_line([rf"\textbf{{{text}}}" if is_bold else text for text in texts]))
    lines = [tex(line) for line in grid.foot]
    layout = "".join("r" if grid.numeric[place] else "l" for place in kept)
    return "\n".join([NEEDS, *latex_table(layout, [latex_line(heads)], body, lines), ""])


def secondary_metrics(metrics: Iterable[str], objective: str) -> list[str]:
    """Return the metrics of images that a study's verdicts are not about. `fid_sampled` is another name of `fid`."""
    judged = (*DISTANCES, *IMAGE_SCORES)
    own = {objective, *(["fid", "fid_sampled"] if objective in ("fid", "fid_sampled") else [])}
    return [
        metric
        for metric in metrics
        if metric not in own and any(metric == name or metric.startswith(f"{name}_") for name in judged)
    ]


def settings_frame(
    rows: Sequence[TrialRow], best: Sequence[int], bold: Sequence[int] = (), objective: str = "fid", family: str = ""
) -> pa.Table:
    """Return the settings as a table with a row for each setting.

    The columns are `setting`, `state`, the parameters, and for each metric its mean, its standard deviation between
    trainings (`_sd`) and the number of trainings (`_n`). `best` marks the best settings, and `as_good_as_best` all that
    cannot be told apart from them. The latter is empty if there is no verdict. `p_holm` is the adjusted p-value, if
    there is any. The last columns are the same in every row, because CSV has no lines below a table: `objective`,
    `secondary_unadjusted` (the other metrics), `protocol` and `family`.

    Args:
        rows: A row for each setting.
        best: The numbers of the best settings.
        bold: The numbers of the settings that cannot be told apart from the best. Empty if there is no verdict.
        objective: The metric of the verdicts.
        family: The comparisons that the study planned.
    """
    rows = sorted(rows, key=lambda row: row.number)
    names = list(dict.fromkeys(name for row in rows for name in row.params))
    metrics = list(dict.fromkeys(name for row in rows for name in row.metrics if name not in REPEATED))
    frame: dict[str, list[object]] = {
        "setting": [row.number for row in rows],
        "state": [row.state for row in rows],
        "best": [row.number in best for row in rows],
        "as_good_as_best": [row.number in bold if bold else None for row in rows],
        **{name: _alike([row.params.get(name) for row in rows]) for name in names},
    }
    for metric in metrics:
        frame[metric] = [row.metrics.get(metric) for row in rows]
        frame[f"{metric}_sd"] = [row.spreads.get(metric, (None, 0))[0] for row in rows]
        frame[f"{metric}_n"] = [row.spreads.get(metric, (None, 0))[1] for row in rows]
    if any(row.p_value is not None for row in rows):
        frame["p_holm"] = [row.p_value for row in rows]
    key = next((row.protocol.key for row in rows if row.protocol is not None), None)
    others = " ".join(secondary_metrics(metrics, objective)) if family else ""
    below = {"objective": objective, "secondary_unadjusted": others, "protocol": key, "family": family}
    frame |= {name: [value for _ in rows] for name, value in below.items() if value}
    table = pa.table({name: pa.array(values) for name, values in frame.items()})
    metadata = {name: value for name, value in below.items() if value}
    return table.replace_schema_metadata(metadata) if key is not None else table


def as_csv(frame: pa.Table) -> bytes:
    """Return a table as CSV with a header."""
    out = io.BytesIO()
    pyarrow.csv.write_csv(frame, out)
    return out.getvalue()


def as_parquet(frame: pa.Table) -> bytes:
    """Return a table as a Parquet file. Its metadata has the key of the protocol, and the family."""
    out = io.BytesIO()
    pyarrow.parquet.write_table(frame, out)
    return out.getvalue()


def _alike(values: Sequence[object]) -> list[object]:
    """Return values of one type, because a column of Parquet has one type: numbers, or otherwise texts."""
    known = [value for value in values if value is not None]
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in known):
        whole = all(isinstance(value, int) for value in known)
        return [value if value is None or whole else float(str(value)) for value in values]
    return [None if value is None else str(value) for value in values]

"""Reading encoded images out of Parquet files in Hugging Face's layout, a few rows at a time and within bounds."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coldtune.data.regular_files import check_memory, check_size, open_regular

_SHARD = re.compile(r"-(\d+)-of-(\d+)")
_MOST_SHARDS = 1000
_MOST_ROWS = 1_000_000
_MOST_BATCH_BYTES = 1 << 28
_METADATA = b"huggingface"
_LABEL = "label"
_SIMILAR = ("class", "classes", "category", "target")


@dataclass(frozen=True)
class Columns:
    """What is read of a Parquet file, and how much.

    Attributes:
        image: The names that the column of images may have. It is a struct with `bytes`, or binary if `plain`.
        label: The labels that the column `label` must have, in words. None if there need be no labels.
        most_image_bytes: The most bytes of an encoded image.
        most_bytes: The most bytes of all images of a file.
        plain: True allows a binary column of images, labels of other types, and labels that are null.
    """

    image: tuple[str, ...]
    label: str | None
    most_image_bytes: int
    most_bytes: int
    plain: bool = False


@dataclass(frozen=True)
class Rows:
    """The rows of a Parquet file.

    Attributes:
        images: The encoded images.
        labels: The label of each image, integers, texts or booleans. None if it is null. Empty if the file has no
            labels that can be read.
        classes: The names of the labels 0, 1, ... if the file's metadata tell them.
    """

    images: list[bytes]
    labels: list[int | str | None] = field(default_factory=list)
    classes: tuple[str, ...] = ()


def read_images(path: Path, columns: Columns) -> Rows:
    """Read the encoded images and the labels of a Parquet file.

    Raises:
        ValueError: If the file is damaged, too large, or lacks a column, an image or a label. The message names the
            row, counted from 0.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    images: list[bytes] = []
    labels: list[int | str | None] = []
    size = 0
    with open_regular(path) as file:
        try:
            shard = pq.ParquetFile(file)
            schema = shard.schema_arrow
            name, where, labelled = _check_columns(path, schema, columns)
            _check_sizes(path, shard.metadata, columns)
            largest = max((_unpacked(shard.metadata, group) for group in range(shard.num_row_groups)), default=1)
            # A dictionary can repeat a value in each row, so no row is larger than the group that contains it.
            count = min(1024, max(1, _MOST_BATCH_BYTES // largest))
            for batch in shard.iter_batches(count, columns=[where, *([_LABEL] if labelled else [])]):
                encoded = batch[name] if where == name else pc.struct_field(batch[name], "bytes")
                needed = batch[_LABEL] if labelled and not columns.plain else None
                _check_rows(path, len(images), where, encoded, needed, columns)
                size += pc.sum(pc.binary_length(encoded)).as_py()
                check_size(str(path), size, columns.most_bytes)
                images += encoded.to_pylist()
                labels += batch[_LABEL].to_pylist() if labelled else []
        except (OSError, pa.ArrowException) as error:
            raise ValueError(f"{path} is damaged: {str(error).partition(chr(10))[0]}") from error
    if not images:
        raise ValueError(f"{path} contains no images")
    return Rows(images, labels, _class_names(schema) if labelled else ())


def missing_shards(shards: Sequence[Path]) -> list[str]:
    """Return the names of missing shards. The names of the others say how many there are (`train-00000-of-00005...`).

    Raises:
        ValueError: If a name promises more shards than are allowed.
    """
    present: dict[tuple[Path, str, int], set[int]] = {}
    for path in shards:
        if match := _SHARD.search(path.name):
            number, promised = int(match[1]), int(match[2])
            if not number < promised <= _MOST_SHARDS:
                raise ValueError(f"{path} is shard {match[1]} of {match[2]}, but at most {_MOST_SHARDS} are allowed")
            present.setdefault((path.parent, path.name[: match.start()], promised), set()).add(number)
    return [
        f"{prefix}-{number:05d}-of-{promised:05d}.parquet"
        for (_, prefix, promised), numbers in sorted(present.items())
        for number in range(promised)
        if number not in numbers
    ]


def _check_columns(path: Path, schema: Any, columns: Columns) -> tuple[str, str, bool]:
    """Return the column of images, the column or field of their bytes, and True if there are labels."""
    import pyarrow as pa

    kinds = {column.name: column.type for column in schema}
    name = next((name for name in columns.image if name in kinds), None)
    image, label = kinds.get(name), kinds.get(_LABEL)
    is_struct = image is not None and pa.types.is_struct(image) and image.get_field_index("bytes") >= 0
    if name is None or not (is_struct or columns.plain) or (label is None and columns.label is not None):
        needed = f"{' or '.join(columns.image)} (bytes, path){'' if columns.label is None else f', {_LABEL}'}"
        raise ValueError(f"{path}: columns {', '.join(kinds)}; needed: {needed}")
    assert image is not None
    where, data = (f"{name}.bytes", image.field("bytes").type) if is_struct else (name, image)
    if not pa.types.is_binary(data) and not pa.types.is_large_binary(data):
        raise ValueError(f"{path}: {where} is a column of {data}, but binary is needed")
    labelled = label is not None
    if labelled and not pa.types.is_integer(label):
        if columns.label is not None:
            raise ValueError(f"{path}: {_LABEL} is a column of {label}, but {columns.label} are needed")
        labelled = _tells_classes(label)
    return name, where, labelled


def _tells_classes(kind: Any) -> bool:
    """Return True if a column of this type can hold labels. Categories of pandas are a dictionary of texts."""
    import pyarrow as pa

    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return any(
        is_kind(kind)
        for is_kind in (pa.types.is_integer, pa.types.is_string, pa.types.is_large_string, pa.types.is_boolean)
    )


@dataclass(frozen=True)
class LabelColumn:
    """What a user should know about the labels of a Parquet file.

    Attributes:
        there: True if the file has a column `label`.
        problem: Why its labels tell no classes, or "".
        similar: Other columns that may hold labels, and are not read.
    """

    there: bool
    problem: str = ""
    similar: tuple[str, ...] = ()


def look_at_labels(path: Path) -> LabelColumn:
    """Look at the column `label` of a file that `read_images` has read, without its images."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    with open_regular(path) as file:
        shard = pq.ParquetFile(file)
        kinds = {column.name: column.type for column in shard.schema_arrow}
        if _LABEL not in kinds:
            named = [name for name in kinds if _LABEL in name.lower() or name.lower() in _SIMILAR]
            return LabelColumn(False, similar=tuple(name for name in named if _tells_classes(kinds[name])))
        if not _tells_classes(kinds[_LABEL]):
            return LabelColumn(True, f"{path}: label is a column of {kinds[_LABEL]}, not of integers or texts")
        values = shard.read([_LABEL])[_LABEL]
    if (row := pc.index(pc.is_null(values), True).as_py()) >= 0:
        return LabelColumn(True, f"{path}, row {row}: label is null")
    rows = (row for row, value in enumerate(values.to_pylist()) if isinstance(value, int) and value < 0)
    if (first := next(rows, None)) is not None:
        return LabelColumn(True, f"{path}, row {first}: label is negative, which stands for an unknown label")
    return LabelColumn(True)


def _check_sizes(path: Path, metadata: Any, columns: Columns) -> None:
    if metadata.num_rows > _MOST_ROWS:
        raise ValueError(f"{path} promises {metadata.num_rows:,} rows, but at most {_MOST_ROWS:,} are read")
    unpacked = sum(_unpacked(metadata, group) for group in range(metadata.num_row_groups))
    check_size(str(path), unpacked, columns.most_bytes)
    check_memory(str(path), unpacked)


def _unpacked(metadata: Any, group: int) -> int:
    return max(1, int(metadata.row_group(group).total_byte_size))


def _check_rows(path: Path, first: int, where: str, images: Any, labels: Any, columns: Columns) -> None:
    """Raise ValueError naming the first row of a batch that has no image, no label, or an image that is too large."""
    import pyarrow.compute as pc

    most = columns.most_image_bytes
    checks = [
        (f"{where} is null", pc.is_null(images)),
        (f"{where} has more than {most:,} bytes", pc.greater(pc.binary_length(images), most)),
    ]
    if labels is not None:
        checks.insert(1, (f"{_LABEL} is null", pc.is_null(labels)))
    for what, wrong in checks:
        if (row := pc.index(wrong, True).as_py()) >= 0:
            raise ValueError(f"{path}, row {first + row}: {what}")


def _class_names(schema: Any) -> tuple[str, ...]:
    """Return the names of the labels 0, 1, ... in the metadata that Hugging Face writes, or () if there are none."""
    # The metadata are optional and foreign, so names of a wrong form are as good as no names.
    with suppress(ValueError, KeyError, TypeError, AttributeError, RecursionError):
        names = json.loads((schema.metadata or {})[_METADATA])["info"]["features"][_LABEL]["names"]
        if isinstance(names, list) and all(isinstance(name, str) for name in names):
            return tuple(names)
    return ()

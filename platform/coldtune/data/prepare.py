"""Preparing a dataset: published files in, a fingerprinted and memory-mappable folder out, once for each home."""

from __future__ import annotations

import shutil
import uuid
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from coldtune.config import parse
from coldtune.data import arrow, manifest
from coldtune.data.config import DataConfig
from coldtune.data.dataset import Dataset
from coldtune.data.manifest import Manifest, SplitRecord, content_hash
from coldtune.data.progress import Bars, show
from coldtune.data.registry import source
from coldtune.data.source import Part, Source
from coldtune.data.splits import SPLITS, assign
from coldtune.data.verify import verify
from coldtune.files import lock_file


def prepare(
    config: DataConfig | Mapping[str, Any], home: Path | str, data_dir: Path | str | None = None, progress: bool = True
) -> Dataset:
    """The dataset of `config`, prepared under `home`/data if it is not there yet, and opened.

    `data_dir` is where the published files lie; without it, what is already prepared in this home is used, else the
    files are downloaded into `home`/data/downloads. A folder's identity is the name, the image size, the resize mode
    and the contents of the published files: never their path or age. Any number of processes may prepare at once.
    Memory needed: about twice the published images, and the largest split at its new size; of images that come as
    one file each (celeba, afhq), those alone that are being decoded, but twice the largest split of disk space.

    Raises ValueError where the files are missing, damaged or cannot be had, naming what would help.
    """
    config = parse(DataConfig, config, "data")
    root = Path(home).absolute() / "data"
    root.mkdir(parents=True, exist_ok=True)
    if data_dir is None and (found := _prepared_already(root, config)):
        return found
    chosen = source(config.name)
    with show(progress) as bars:
        files = chosen.files(None if data_dir is None else Path(data_dir), root / "downloads", bars)
        identity = chosen.identity(files, bars)
        folder = root / f"{_stem(config)}-{identity[:8]}"
        if dataset := _good(folder, config, identity):
            return dataset
        with lock_file(root / f".{folder.name}.lock"):
            if dataset := _good(folder, config, identity, warn=True):
                return dataset
            _remove_leftovers(folder)
            raw = chosen.read(files, bars)
            scratch = folder.with_name(f"{_scratch(folder)}{uuid.uuid4().hex}")
            scratch.mkdir()
            try:
                _write(scratch, config, chosen, raw, identity, bars)
                report = verify(scratch)
                assert report.ok, report.describe()
                scratch.rename(folder)
            except BaseException:
                shutil.rmtree(scratch, ignore_errors=True)
                raise
    return Dataset.open(folder)


def prepared(home: Path | str, name: str | None = None) -> list[Path]:
    """The prepared folders of `home` (of the dataset `name` alone, where given), good or not, sorted by name."""
    folders = [path.parent for path in (Path(home).absolute() / "data").glob(f"*/{manifest.FILE}")]
    return sorted(
        path for path in folders if not path.name.startswith(".") and name in (None, path.name.rsplit("-", 3)[0])
    )


def _stem(config: DataConfig) -> str:
    return f"{config.name}-{config.image_size}-{config.resize}"


def _scratch(folder: Path) -> str:
    return f".{folder.name}.new-"


def _prepared_already(root: Path, config: DataConfig) -> Dataset | None:
    """What this home holds for `config`, from whatever files it was made; None where it holds nothing good."""
    found = {}
    for folder in sorted(root.glob(f"{_stem(config)}-*")):
        if dataset := _good(folder, config):
            found[dataset.fingerprint] = dataset
    if len(found) > 1:
        paths = ", ".join(str(dataset.path) for dataset in found.values())
        raise ValueError(f"{_stem(config)} was prepared from different files ({paths}): name yours with --data-dir")
    return next(iter(found.values()), None)


def _good(folder: Path, config: DataConfig, identity: str | None = None, warn: bool = False) -> Dataset | None:
    """The dataset in `folder` if it is whole and what `config` asks for, else None.

    With `warn`, a folder that is there but not good is warned about.
    """
    if not folder.exists():
        return None
    try:
        dataset = Dataset.open(folder)
        for split in dataset.sizes:
            dataset.split(split)
        held, asked = dataset.manifest, config
        if (held.name, held.image_size, held.resize) != (asked.name, asked.image_size, asked.resize):
            raise ValueError(f"{folder} holds {held.name} at {held.image_size} pixels ({held.resize})")
        if identity not in (None, held.source):
            raise ValueError(f"{folder} was made from other files")
    except ValueError as error:
        if warn:
            warnings.warn(f"{error}; preparing it anew", stacklevel=3)
        return None
    return dataset


def _remove_leftovers(folder: Path) -> None:
    """Clear the way for `folder`: its bad predecessor and what killed preparations left. For the lock's holder."""
    if folder.exists():
        folder.rename(folder.with_name(f"{_scratch(folder)}bad-{uuid.uuid4().hex}"))
    for path in folder.parent.glob(f"{_scratch(folder)}*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _write(
    scratch: Path, config: DataConfig, chosen: Source, raw: Mapping[str, Part], identity: str, bars: Bars
) -> None:
    """Fill `scratch`: a file for each split and, last, the manifest that vouches for them."""
    parts = assign(raw)
    advance = bars.start("resize and write", sum(len(indices) for _, indices in parts.values()), "images")
    records = {}
    for split in SPLITS:
        part, indices = parts[split]
        images = raw[part].at(indices, config.image_size, config.resize, scratch, advance)
        labels = raw[part].labels[indices]
        file = scratch / manifest.split_file(split)
        pixels = content_hash(torch.from_numpy(images))
        arrow.write(file, images, labels, tag=pixels)
        records[split] = SplitRecord(
            images=len(images),
            bytes=file.stat().st_size,
            pixels=pixels,
            labels=content_hash(torch.from_numpy(labels)),
        )
    image_shape = (chosen.channels, config.image_size, config.image_size)
    Manifest(
        name=config.name,
        image_size=config.image_size,
        resize=config.resize,
        source=identity,
        image_shape=image_shape,
        num_classes=chosen.num_classes,
        fingerprint=manifest.fingerprint(image_shape, {split: record.pixels for split, record in records.items()}),
        splits=records,
    ).save(scratch)

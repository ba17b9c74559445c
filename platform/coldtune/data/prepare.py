"""Preparation of a dataset, which turns its published files into a fingerprinted folder that can be memory-mapped."""

from __future__ import annotations

import shutil
import uuid
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from coldtune import environment
from coldtune.config import parse
from coldtune.data import arrow, manifest
from coldtune.data.config import DataConfig
from coldtune.data.dataset import Dataset
from coldtune.data.manifest import Manifest, SplitRecord, content_hash
from coldtune.data.progress import Bars, show
from coldtune.data.registry import source
from coldtune.data.regular_files import hash_file
from coldtune.data.source import Part, Source
from coldtune.data.splits import SPLITS, assign, count_shared, hash_parts
from coldtune.data.verify import verify
from coldtune.files import lock_file

_NAMED = 3  # folders that a message names


def prepare(
    config: DataConfig | Mapping[str, Any],
    home: Path | str,
    data_dir: Path | str | None = None,
    progress: bool = True,
    fingerprint: str | None = None,
) -> Dataset:
    """Open the dataset of `config`, after preparing it under `home`/data if it is not there yet.

    The prepared folder is identified by the dataset's name, the image size, the resize mode and the content of the
    published files, never by their path or age. Any number of processes may prepare at once.

    Preparing needs memory for about twice the published images and for the largest split at its new size. Datasets
    that are published as a file per image (celeba, afhq) need memory only for the images that are being decoded, but
    disk space for twice the largest split.

    Args:
        data_dir: The folder of the published files. None stands for `config.path`. Without both, or if that folder is
            gone, a dataset that this home has already prepared is used, and otherwise the files are downloaded into
            `home`/data/downloads.
        progress: Show progress bars on a terminal.
        fingerprint: The images that are meant, if the home has prepared several datasets for `config`.

    Raises:
        ValueError: If the files are missing or damaged, or cannot be downloaded. The message says what would help.
    """
    config = parse(DataConfig, config, "data")
    if data_dir is None and config.path is not None:
        place = environment.expand_path(config.path, "data.path")
        try:
            return _prepare(config, home, place if place.exists() else None, progress, fingerprint)
        except ValueError as error:
            told = str(error).replace("--data-dir = ", "data.path = ").replace("pass --data-dir PATH", "name a folder")
            gone = "" if place.exists() else f"data.path = {config.path!r}: no such directory; "
            raise ValueError(f"{gone}{told}") from error
    return _prepare(config, home, data_dir, progress, fingerprint)


def _prepare(
    config: DataConfig, home: Path | str, data_dir: Path | str | None, progress: bool, fingerprint: str | None
) -> Dataset:
    root = Path(home).absolute() / "data"
    root.mkdir(parents=True, exist_ok=True)
    damage: list[str] = []
    if data_dir is None and (found := _find_prepared(root, config, damage, fingerprint)):
        return found
    chosen = source(config.name)
    if data_dir is not None and chosen.reads_everything and root.resolve().is_relative_to(Path(data_dir).resolve()):
        raise ValueError(
            f"--data-dir = {str(data_dir)!r}: contains the home {root.parent}, whose pictures would be read too. "
            "Name a home outside of it with --home"
        )
    with show(progress) as bars:
        try:
            files = chosen.files(None if data_dir is None else Path(data_dir), root / "downloads", bars)
        except ValueError as error:
            raise ValueError("; ".join([*damage, str(error)])) from error
        identity = chosen.identity(files, bars)
        folder = root / f"{_folder_prefix(config)}-{identity[:8]}"
        if dataset := _open_if_good(folder, config, identity):
            return dataset
        with lock_file(root / f".{folder.name}.lock"):
            if dataset := _open_if_good(folder, config, identity, warn=True):
                return dataset
            _remove_leftovers(folder)
            raw = chosen.read(files, bars)
            scratch = folder.with_name(f"{_scratch_prefix(folder)}{uuid.uuid4().hex}")
            scratch.mkdir()
            try:
                _write_splits(scratch, config, chosen, raw, identity, chosen.classes(files), bars)
                report = verify(scratch)
                assert report.ok, report.describe()
                scratch.rename(folder)
            except BaseException:
                shutil.rmtree(scratch, ignore_errors=True)
                raise
    for notice in chosen.notices(files):
        warnings.warn(notice, stacklevel=3)
    return Dataset.open(folder)


def prepared(home: Path | str, name: str | None = None) -> list[Path]:
    """Return the prepared folders of `home`, sorted by name. They are not checked.

    Args:
        name: Return only the folders of this dataset.
    """
    folders = [path.parent for path in (Path(home).absolute() / "data").glob(f"*/{manifest.FILE}")]
    return sorted(
        path for path in folders if not path.name.startswith(".") and name in (None, path.name.rsplit("-", 3)[0])
    )


def _folder_prefix(config: DataConfig) -> str:
    return f"{config.name}-{config.image_size}-{config.resize}"


def _scratch_prefix(folder: Path) -> str:
    return f".{folder.name}.new-"


def _find_prepared(root: Path, config: DataConfig, damage: list[str], fingerprint: str | None = None) -> Dataset | None:
    """Find a good dataset that this home has prepared for `config`, from any published files.

    What is wrong with the others is appended to `damage`. Raises ValueError if there are several with different images,
    and none of them is the dataset with this fingerprint.
    """
    datasets: dict[str, Dataset] = {}
    for folder in sorted(root.glob(f"{_folder_prefix(config)}-*")):
        if dataset := _open_if_good(folder, config, damage=damage):
            same = datasets.setdefault(dataset.fingerprint, dataset)
            if dataset.num_classes > same.num_classes:  # an earlier version read no classes from folders
                datasets[dataset.fingerprint] = dataset
    if fingerprint in datasets:
        return datasets[fingerprint]
    if len(datasets) > 1:
        paths = [str(dataset.path) for dataset in datasets.values()]
        more = f" and {len(paths) - _NAMED} more" if len(paths) > _NAMED else ""
        raise ValueError(
            f"{_folder_prefix(config)} was prepared from different files ({', '.join(paths[:_NAMED])}{more}). Choose "
            "with --data-dir"
        )
    return next(iter(datasets.values()), None)


def _open_if_good(
    folder: Path,
    config: DataConfig,
    identity: str | None = None,
    warn: bool = False,
    damage: list[str] | None = None,
) -> Dataset | None:
    """Open `folder` if it is the dataset that `config` asks for and all its pixels are good, otherwise return None.

    With `warn`, a folder that exists but is not good causes a warning. What is wrong is appended to `damage`.
    """
    if not folder.exists():
        return None
    try:
        dataset = Dataset.open(folder)
        for split in dataset.sizes:
            dataset.split(split)
        there = dataset.manifest
        if (there.name, there.image_size, there.resize) != (config.name, config.image_size, config.resize):
            raise ValueError(f"{folder} contains {there.name} at {there.image_size} pixels ({there.resize})")
        if identity not in (None, there.source):
            raise ValueError(f"{folder} was made from other files")
    except ValueError as error:
        if damage is not None:
            damage.append(str(error))
        if warn:
            warnings.warn(f"{error}; preparing it again", stacklevel=3)
        return None
    return dataset


def _remove_leftovers(folder: Path) -> None:
    """Remove a bad `folder` and the scratch folders of killed preparations. Call this only while holding the lock."""
    if folder.exists():
        folder.rename(folder.with_name(f"{_scratch_prefix(folder)}bad-{uuid.uuid4().hex}"))
    for path in folder.parent.glob(f"{_scratch_prefix(folder)}*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _write_splits(
    scratch: Path,
    config: DataConfig,
    chosen: Source,
    raw: Mapping[str, Part],
    identity: str,
    classes: tuple[str, ...],
    bars: Bars,
) -> None:
    """Write a file for each split into `scratch`, and then the manifest with their hashes."""
    hashes = hash_parts(raw)
    parts = assign(raw, hashes)
    if chosen.reads_everything and (shared := count_shared(hashes)):
        warnings.warn(
            f"{config.name}: {shared:,} images are in several of {', '.join(sorted(hashes))}, so a restorer is judged "
            "on images that it was trained on. Remove the copies",
            stacklevel=3,
        )
    advance = bars.start("resize and write", sum(len(indices) for _, indices in parts.values()), "images")
    records = {}
    for split in SPLITS:
        part, indices = parts[split]
        images = raw[part].load_resized(indices, config.image_size, config.resize, scratch, advance)
        labels = raw[part].labels[indices]
        file = scratch / manifest.split_file(split)
        pixels = content_hash(torch.from_numpy(images))
        arrow.write(file, images, labels, tag=pixels)
        records[split] = SplitRecord(
            images=len(images),
            bytes=file.stat().st_size,
            pixels=pixels,
            labels=content_hash(torch.from_numpy(labels)),
            sha256=hash_file(file),
        )
    image_shape = (chosen.channels, config.image_size, config.image_size)
    Manifest(
        name=config.name,
        image_size=config.image_size,
        resize=config.resize,
        source=identity,
        image_shape=image_shape,
        num_classes=len(classes) or chosen.num_classes,
        fingerprint=manifest.fingerprint(image_shape, {split: record.pixels for split, record in records.items()}),
        splits=records,
        classes=classes,
    ).save(scratch)

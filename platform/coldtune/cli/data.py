"""`coldtune data`: prepare, list and verify datasets, and train judges for a user's own."""

from __future__ import annotations

import argparse
import shlex
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from coldtune import environment
from coldtune.cli.common import Commands, add_home_flag, find_home
from coldtune.cli.entry import describe, print_error
from coldtune.cli.json_output import add_json_flag, print_json
from coldtune.cli.tables import ListTable
from coldtune.places import check_folder

if TYPE_CHECKING:
    from coldtune.data import Dataset
    from coldtune.metrics.judges import JudgeCard

_TRAIN_JUDGE = """
Train a judge: a small network whose features compare images of a dataset of your own. With labels it is a classifier,
without labels it learns to find an image again by another view of it. Its scores on held-out images are shown beside
those of raw pixels. It is stored in the home, and its hash is a part of the protocol of every value.
"""


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser("data", help="prepare, list and verify datasets, train a judge for your own")
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    prepare = add_home_flag(verbs.add_parser("prepare", help="download or read, resize, split and fingerprint"))
    _add_dataset_flags(prepare)
    prepare.set_defaults(call=_prepare)
    listed = add_home_flag(verbs.add_parser("list", help="list the datasets that a home has prepared"))
    add_json_flag(listed).set_defaults(call=_list)
    verify = add_home_flag(verbs.add_parser("verify", help="read every pixel and compare with the manifest"))
    verify.add_argument("name", help="name of a dataset, or path of a prepared folder")
    add_json_flag(verify).set_defaults(call=_verify)
    train = add_home_flag(
        verbs.add_parser("train-judge", help="train a feature extractor for your own images", description=_TRAIN_JUDGE)
    )
    _add_dataset_flags(train)
    train.add_argument("--ignore-labels", action="store_true", help="train without labels although there are some")
    train.add_argument("--dim", type=int, metavar="D", help="features of an image (default: N >= 4 d, at most 64)")
    train.add_argument("--epochs", type=int, metavar="N", help="passes over the training split (default: by its size)")
    train.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the training (default 0)")
    train.set_defaults(call=_train_judge)
    judges = add_home_flag(verbs.add_parser("judges", help="list the judges of the home with their scores"))
    add_json_flag(judges).set_defaults(call=_judges)


def _add_dataset_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "name",
        metavar="NAME|PATH",
        help="digits, mnist, cifar10, celeba, afhq, folder or parquet, or the path of a folder of your own images or "
        "Parquet files",
    )
    parser.add_argument("--image-size", type=int, default=16, metavar="PX", help="width and height (default 16)")
    parser.add_argument("--resize", default="bilinear", help="filter that resizes images (default: bilinear)")
    parser.add_argument(
        "--data-dir",
        type=Path,
        metavar="PATH",
        help="folder with the published files, or with your own images for `folder` and `parquet`",
    )


def _prepare(options: argparse.Namespace, console: Console) -> int:
    from coldtune.data.registry import OWN
    from coldtune.metrics.judges import advise

    dataset = _open_dataset(options)
    console.print(f"{dataset.path}\n  fingerprint {dataset.fingerprint}", highlight=False, soft_wrap=True)
    for split, size in dataset.sizes.items():
        console.print(f"  {split:<11} {size:>7,} images {'x'.join(map(str, dataset.image_shape))}", highlight=False)
    if dataset.name in OWN:
        console.print(f"  {_describe_classes(dataset)}", highlight=False, soft_wrap=True)
        console.print(f"  {advise(dataset, _name_and_place(options)[1])}", highlight=False, soft_wrap=True)
    return 0


def _list(options: argparse.Namespace, console: Console) -> int:
    from coldtune.data import Dataset, prepared

    home = find_home(options)
    records: list[dict[str, Any]] = []
    for path in prepared(home):
        try:
            dataset = Dataset.open(path)
        except (ValueError, OSError) as error:  # a damaged dataset must not hide the others
            records.append({"path": path, "error": describe(error)})
            continue
        records.append(
            {
                "name": dataset.name,
                "path": path,
                "image_shape": dataset.image_shape,
                "resize": dataset.manifest.resize,
                "classes": dataset.num_classes,
                "sizes": dataset.sizes,
                "fingerprint": dataset.fingerprint,
            }
        )
    if options.json:
        print_json(records)
    else:
        console.print(_dataset_table(home, records), highlight=False)
    problems = [record["error"] for record in records if "error" in record]
    for problem in problems:
        print_error(problem)
    return 1 if problems else 0


def _dataset_table(home: Path, records: Sequence[Mapping[str, Any]]) -> ListTable:
    table = ListTable(
        str(home / "data"), ("dataset", "images", "resize"), ("classes",), ("splits", "fingerprint", "in")
    )
    for record in records:
        if "error" in record:
            table.add_row("-", "-", "-", "-", Text("cannot be read", style="red"), "-", record["path"].name)
            continue
        shape = "x".join(map(str, record["image_shape"]))
        sizes = ", ".join(f"{split} {size:,}" for split, size in record["sizes"].items())
        cells = (record["name"], shape, record["resize"], str(record["classes"]), sizes)
        table.add_row(*cells, record["fingerprint"][:12], record["path"].name)
    return table


def _verify(options: argparse.Namespace, console: Console) -> int:
    from coldtune.data import prepared, verify

    home = find_home(options)
    paths = [Path(options.name)] if "/" in options.name else prepared(home, options.name)
    if not paths:
        raise ValueError(f"data verify {options.name}: no dataset of this name is prepared in {home}")
    reports = [verify(path) for path in paths]
    failed = any(report.problems for report in reports)
    if options.json:
        print_json([asdict(report) for report in reports])
        return 1 if failed else 0
    for report in reports:
        sizes = ", ".join(f"{split} {size:,}" for split, size in report.sizes.items())
        console.print(f"{report.path}: {sizes or 'unreadable'}", highlight=False, soft_wrap=True)
        for problem in report.problems or ("as its manifest says",):
            console.print(f"  {problem}", highlight=False, soft_wrap=True)
    return 1 if failed else 0


def _train_judge(options: argparse.Namespace, console: Console) -> int:
    from coldtune.data.progress import show
    from coldtune.metrics.train_judge import check_training, choose_dim, choose_epochs, choose_kind, train_judge

    check_training(options.dim, options.epochs, options.seed)
    check_folder(find_home(options) / "judges", "--home", write=False)
    dataset = _open_dataset(options)
    classify, reason = choose_kind(dataset, options.ignore_labels)
    epochs = options.epochs or choose_epochs(dataset.sizes["train"], classify)
    dim = options.dim or choose_dim(dataset)
    console.print(f"{_describe_classes(dataset)}{f'; {reason}' if reason else ''}", highlight=False, soft_wrap=True)
    with show(True) as bars:
        card, found = train_judge(dataset, bars.start, classify=classify, dim=dim, epochs=epochs, seed=options.seed)
    console.print(f"{card.name}{' (found, not trained again)' if found else ''}", highlight=False)
    for line in card.describe():
        console.print(f"  {line}", highlight=False, soft_wrap=True)
    console.print(f"  {dataset.home / 'judges' / card.sha256}.safetensors", highlight=False, soft_wrap=True)
    for weakness in card.scores.weaknesses():
        warnings.warn(f"{card.name}: {weakness}", stacklevel=2)
    _print_use(console, options, dataset, card)
    return 0


def _judges(options: argparse.Namespace, console: Console) -> int:
    from coldtune.metrics.judges import card_files, read_judge

    home = find_home(options)
    found, damaged = [], 0
    for path in card_files(home):
        try:
            found.append(read_judge(path)[0])
        except (ValueError, OSError) as error:
            print_error(describe(error))
            damaged = 1
    if options.json:
        print_json([{"name": card.name, **card.model_dump(mode="json")} for card in found])
        return damaged
    if not found:
        console.print(f"{home} has no judges. `coldtune data train-judge PATH` makes one.", highlight=False)
        return damaged
    scored = ("d", "accuracy", "retrieval", "raw pixels")
    table = ListTable(str(home / "judges"), ("judge", "dataset", "images", "kind"), scored, ("fingerprint",))
    for card in found:
        scores = card.scores
        accuracy = "-" if scores.accuracy is None else f"{scores.accuracy:.1%}"
        shape = "x".join(map(str, card.data.image_shape))
        numbers = (accuracy, f"{scores.retrieval:.1%}", f"{scores.pixels:.1%}", card.data.fingerprint[:12])
        table.add_row(card.name, card.data.name, shape, card.kind, str(card.network.dim), *numbers)
    console.print(table, highlight=False)
    return damaged


def _open_dataset(options: argparse.Namespace) -> Dataset:
    """Prepare the dataset that NAME|PATH and the flags mean."""
    from coldtune.data import prepare

    home = find_home(options)
    check_folder(home / "data", "--home", write=False)
    name, data_dir = _name_and_place(options)
    config = {"name": name, "image_size": options.image_size, "resize": options.resize}
    try:
        return prepare(config, home, data_dir)
    except ValueError as error:
        if options.data_dir is None and data_dir is not None:  # nobody typed the flag that the message names
            raise ValueError(str(error).replace("--data-dir = ", "")) from error
        raise


def _name_and_place(options: argparse.Namespace) -> tuple[str, Path | None]:
    """Return the dataset's name and the folder of its files. A path means `folder` or `parquet`."""
    from coldtune.data.file_collections import FolderFiles
    from coldtune.data.registry import names

    path = environment.expand_path(options.name, "NAME|PATH")
    if options.name in names() or ("/" not in options.name and not path.exists()):
        return options.name, options.data_dir
    if options.data_dir is not None:
        raise ValueError(f"--data-dir {options.data_dir}: {options.name} is a path already. Leave one of them out")
    if path.is_dir():
        files = FolderFiles.find(path).names
        parquet = any(name.lower().endswith(".parquet") for name in files)
        return "parquet" if parquet and not _any_image(files) else "folder", path
    return "parquet" if path.suffix.lower() == ".parquet" else "folder", path


def _any_image(names: tuple[str, ...]) -> bool:
    from coldtune.data.decode import is_image

    return any(map(is_image, names))


def _describe_classes(dataset: Dataset) -> str:
    names = dataset.classes
    shown = f" ({', '.join(names[:5])}{', ...' if len(names) > 5 else ''})" if names else ""
    return f"{dataset.num_classes:,} classes{shown}" if dataset.num_classes > 1 else "no classes"


def _print_use(console: Console, options: argparse.Namespace, dataset: Dataset, card: JudgeCard) -> None:
    """Print the command that uses a judge. Warn if its d is too large for FID as an objective."""
    from coldtune.metrics.judges import IMAGES_PER_DIM

    words = ["coldtune", "study", "run", "blur", "--dataset", dataset.name]
    place = _name_and_place(options)[1]
    words += ["--data-dir", str(place)] if place else []
    words += ["--home", str(dataset.home)] if options.home else []
    words += ["--set", f"data.image_size={dataset.image_shape[1]}", f"protocol.extractor={card.name}"]
    console.print(f"Use it: {environment.runner()}{shlex.join(words)}", highlight=False, soft_wrap=True)
    least = IMAGES_PER_DIM * card.network.dim
    if (images := dataset.sizes["validation"]) < least:
        warnings.warn(
            f"{dataset.name}: {images} validation images, but FID as an objective needs {least} with {card.name} "
            f"(d = {card.network.dim}). Name another objective in the space, such as `objective: {{metric: kid}}`",
            stacklevel=2,
        )

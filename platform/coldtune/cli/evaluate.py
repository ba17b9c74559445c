"""`coldtune evaluate`: what finished trials are worth, and pictures from elsewhere."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console
from rich.text import Text

from coldtune.cli.common import Commands, home_of, store_of, with_store

if TYPE_CHECKING:
    from torch import Tensor

    from coldtune.stages.evaluate import Evaluation, Split

SPLITS = ("train", "validation", "test")
_OF_RUNS = {"runs": "RUN", "tracking_uri": "--tracking-uri"}
_OF_IMAGES = {"reference": "--reference", "image_size": "--image-size", "resize": "--resize"}

DESCRIPTION = """
Judge finished trials by every metric, with 95 % intervals: the degraded images, direct restoration, the trial's own
sampler and Algorithm 1. Nothing is trained; what was sampled or judged before is found in the store. With two or more
RUNs, each is compared with the first, image by image. With --images, pictures from elsewhere are judged against a
dataset's split, as generated images are.

RUN is STUDY/NUMBER, STUDY (its best trial), an MLflow run id, or a trial's config.yaml (or a folder that holds it).
"""


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "evaluate",
        help="judge finished trials, or pictures from elsewhere",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", nargs="*", metavar="RUN", help="finished trials; see above")
    parser.add_argument(
        "--images",
        type=Path,
        metavar="DIR",
        help="a folder of pictures, or one array file (.npz, .npy, .safetensors), instead of RUNs",
    )
    parser.add_argument("--reference", metavar="NAME", help="the dataset that the pictures are compared with")
    parser.add_argument("--split", choices=SPLITS, help="default: the trial's own; validation with --images")
    parser.add_argument("--num-images", type=_count, metavar="N", help="of the split, or `all` (default: the trial's)")
    parser.add_argument("--extractor", metavar="NAME", help="a shipped judge, or module:attribute (default: its own)")
    parser.add_argument("--seed", type=int, metavar="N", help="of the choice of images and of all draws")
    parser.add_argument("--image-size", type=int, metavar="PX", help="of the reference (default: the pictures' own)")
    parser.add_argument(
        "--resize",
        choices=("bilinear", "bicubic", "nearest"),
        help="how the reference is brought to that size (default: bilinear), and the pictures, which are left as they "
        "are without it",
    )
    parser.add_argument("--data-dir", type=Path, metavar="PATH", help="where the dataset's published files lie")
    parser.add_argument(
        "--tracking-uri", metavar="URI", help="where MLflow run ids are looked up (default: the home's)"
    )
    parser.add_argument("--device", help="cpu or cuda (default: cuda where there is one)")
    parser.add_argument("--output", "--json", type=Path, metavar="FILE", help="also write everything as JSON")
    parser.add_argument("--markdown", action="store_true", help="print Markdown instead of a table for the terminal")
    with_store(parser).set_defaults(call=_evaluate)


def _count(text: str) -> int | Literal["all"]:
    if text == "all":
        return "all"
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: allowed: an integer, or all") from None


def _evaluate(options: argparse.Namespace, console: Console) -> int:
    _check(options)
    evaluations = [_of_images(options)] if options.images else _of_runs(options)
    for evaluation in evaluations:
        _show(evaluation, options.markdown, console)
    compared = _compared(evaluations, options.markdown, console)
    if options.output:
        record = {"evaluations": [evaluation.record() for evaluation in evaluations], "comparisons": compared}
        options.output.write_text(json.dumps(record, indent=1, allow_nan=False) + "\n")
    return 0


def _check(options: argparse.Namespace) -> None:
    """What can be told wrong before anything is loaded."""
    if bool(options.runs) == bool(options.images):
        raise ValueError("evaluate: name RUNs, or pictures with --images DIR --reference NAME; one of the two")
    if options.images and not options.reference:
        raise ValueError("--reference: required with --images; the dataset that the pictures are compared with")
    if options.images and options.num_images is not None:
        raise ValueError("--num-images: all pictures of --images are judged; leave it out")
    foreign = _OF_RUNS if options.images else _OF_IMAGES
    if given := [flag for name, flag in foreign.items() if getattr(options, name)]:
        raise ValueError(f"{', '.join(given)}: has no effect {'with' if options.images else 'without'} --images")
    if options.output and (options.output.is_dir() or not options.output.absolute().parent.is_dir()):
        raise ValueError(f"--output {options.output}: must be a file in a folder that is there")


def _of_runs(options: argparse.Namespace) -> list[Evaluation]:
    from dataclasses import replace

    from coldtune.cli.stores import store_of_runs
    from coldtune.stages.evaluate import evaluate_runs, with_protocol
    from coldtune.store.store import Store
    from coldtune.studies.trials.lookup import Home, find_run

    store = store_of_runs(home_of(options), options.runs, options.store)
    store.check()
    home = Home(home_of(options), options.data_dir, options.tracking_uri, store)
    protocol = (options.split, options.num_images, options.extractor, options.seed)
    runs = [find_run(name, home) for name in options.runs]
    judged = [replace(run, config=with_protocol(run.config, *protocol)) for run in runs]
    return evaluate_runs(judged, Store(store), _device(options.device))


def _of_images(options: argparse.Namespace) -> Evaluation:
    from coldtune.data import prepare
    from coldtune.metrics import build_extractor
    from coldtune.stages.evaluate import evaluate_images
    from coldtune.store.cache import StoreCache

    home, device = home_of(options), _device(options.device)
    extractor = build_extractor(_judge(options))
    images = _pictures(options)
    data = {"name": options.reference, "image_size": images.shape[-1], "resize": options.resize or "bilinear"}
    dataset = prepare(data, home, options.data_dir)
    cache = StoreCache(store_of(options))
    split: Split = options.split or "validation"
    return evaluate_images(str(options.images), images, dataset, extractor, cache, split, options.seed or 0, device)


def _judge(options: argparse.Namespace) -> str:
    """The extractor that is named, or the one that ships for the reference."""
    from coldtune.data.registry import source
    from coldtune.studies.spec.build import JUDGES

    source(options.reference)  # ValueError for an unknown one
    extractor = options.extractor or JUDGES.get(options.reference)
    if extractor is None:
        raise ValueError(
            f"--extractor: no judge ships for {options.reference!r} (there are: {', '.join(sorted(JUDGES))}); name "
            "one of your own, module:attribute"
        )
    return str(extractor)


def _pictures(options: argparse.Namespace) -> Tensor:
    """The pictures in the reference's channels, at its size where that is given, else at their own."""
    from coldtune.data import read_images
    from coldtune.data.registry import channels

    size = options.image_size
    if size is None:
        found, _ = read_images(options.images)
        if found.shape[2] != found.shape[3]:
            raise ValueError(
                f"--images {options.images}: pictures of {found.shape[3]} x {found.shape[2]} pixels; datasets are "
                "square: crop them beforehand"
            )
        if found.shape[1] == channels(options.reference):
            return found
        size = found.shape[-1]
    shape = (channels(options.reference), size, size)
    return read_images(options.images, shape, resize=options.resize)[0]


def _device(name: str | None) -> str:
    import torch

    if name is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name not in ("cpu", "cuda") and not name.startswith("cuda:"):
        raise ValueError(f"--device {name}: allowed: cpu, cuda, cuda:N")
    if name != "cpu" and not torch.cuda.is_available():
        raise ValueError(f"--device {name}: this machine has no CUDA device that torch can use; allowed: cpu")
    return name


def _show(evaluation: Evaluation, markdown: bool, console: Console) -> None:
    from coldtune.reports.evaluation import evaluation_markdown, evaluation_table

    if markdown:
        print(evaluation_markdown(evaluation.sets, evaluation.title))
    else:
        console.print(evaluation_table(evaluation.sets, evaluation.title))
        console.print()


def _compared(evaluations: list[Evaluation], markdown: bool, console: Console) -> list[dict[str, Any]]:
    """Print how each run compares with the first; gives the comparisons as records."""
    from coldtune.reports.evaluation import comparison_record
    from coldtune.stages.evaluate import compare_sampled, warn_unequal_starts

    first, *others = evaluations
    records: list[dict[str, Any]] = []
    for other in others:
        found = compare_sampled(other, first)
        lines = [*map(str, found), found[0].per_image(), warn_unequal_starts(other, first)]
        for line in filter(None, lines):
            console.print(Text(f"{'- ' * markdown}{line}"), soft_wrap=markdown)
        console.print()
        records += [comparison_record(comparison) for comparison in found]
    return records

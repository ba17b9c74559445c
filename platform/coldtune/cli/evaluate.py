"""`coldtune evaluate`: judge finished trials, or pictures from elsewhere."""

from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console
from rich.text import Text

from coldtune.cli.common import Commands, add_store_flag, check_threads, find_home
from coldtune.cli.finished_run import choose_device
from coldtune.cli.outputs import STDOUT
from coldtune.places import STREAMS, check_output, write_output

if TYPE_CHECKING:
    from collections.abc import Sequence

    from coldtune.stages.evaluate import Evaluation, FinishedTrial
    from coldtune.studies.trials.lookup import Home

_STDOUT = (STDOUT, STREAMS[0])
_SMALLEST_PX, _LARGEST_PX = 8, 256  # as in `data.image_size`
_FLAGS_OF_RUNS = {"runs": "RUN", "tracking_uri": "--tracking-uri", "against": "--against", "baseline": "--baseline"}
_FLAGS_OF_IMAGES = {"reference": "--reference", "image_size": "--image-size", "resize": "--resize"}

DESCRIPTION = """
Judge finished trials by every metric, with 95 % intervals: the degraded images, direct restoration, the trial's own
sampler and Algorithm 1. Nothing is trained. Images and judgements that exist already come from the store. If there are
two or more RUNs, they are the rows of one table, and each is compared with the first (or with --baseline RUN), image by
image. If a study with replicates has both, the verdict on their settings by all trainings follows. With --images,
pictures from elsewhere are judged against a split of a dataset, like generated images.

RUN is STUDY/NUMBER, STUDY (its best trial), an MLflow run id, or a trial's config.yaml (or a folder that contains it).
"""


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "evaluate",
        help="judge finished trials, or pictures from elsewhere",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", nargs="*", metavar="RUN", help="finished trials, as described above")
    parser.add_argument(
        "--baseline", metavar="RUN", help="the run with which the others are compared (default: the first)"
    )
    _add_picture_flags(parser)
    _add_protocol_flags(parser)
    parser.add_argument("--data-dir", type=Path, metavar="PATH", help="folder with the dataset's published files")
    parser.add_argument(
        "--tracking-uri", metavar="URI", help="MLflow server on which run ids are looked up (default: the home's)"
    )
    parser.add_argument("--device", help="cpu or cuda (default: cuda if available)")
    parser.add_argument(
        "--threads",
        type=int,
        default=1,
        metavar="N",
        help="CPU threads of new samplings and judgements, which decide their last bits (default 1)",
    )
    parser.add_argument(
        "--output",
        "--json",
        type=Path,
        metavar="FILE",
        help="also write everything as JSON (-: to stdout, and the tables to stderr)",
    )
    parser.add_argument("--markdown", action="store_true", help="print Markdown instead of a table for the terminal")
    add_store_flag(parser).set_defaults(call=_evaluate)


def _add_picture_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--images",
        type=Path,
        metavar="DIR",
        help="a folder of pictures, or an array file (.npz, .npy, .safetensors), instead of RUNs",
    )
    parser.add_argument("--reference", metavar="NAME", help="the dataset that the pictures are compared with")
    parser.add_argument(
        "--image-size", type=int, metavar="PX", help="image size of the reference (default: that of the pictures)"
    )
    parser.add_argument(
        "--resize",
        choices=("bilinear", "bicubic", "nearest"),
        help="resize pictures and reference to the image size with this filter (default: bilinear for the reference, "
        "and pictures must have the size)",
    )


def _add_protocol_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--split",
        choices=("train", "validation", "test"),
        help="split of the dataset (default: the trial's, or validation for pictures)",
    )
    parser.add_argument(
        "--num-images",
        type=_parse_count,
        metavar="N",
        help="number of images of the split, or `all` (default: the trial's)",
    )
    parser.add_argument(
        "--extractor",
        metavar="NAME",
        help="feature extractor: a shipped one, a judge of the home, or module:attribute (default: the trial's or the "
        "dataset's)",
    )
    parser.add_argument(
        "--seed", type=int, metavar="N", help="seed of the choice of images and of all draws (default: the trial's)"
    )
    parser.add_argument(
        "--against",
        choices=("same", "other", "train"),
        help="judge a RUN against the same images of the split, its other half, or the training split (default: the "
        "trial's protocol.reference)",
    )


def _parse_count(text: str) -> int | Literal["all"]:
    if text == "all":
        return "all"
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: allowed: an integer, or all") from None


def _evaluate(options: argparse.Namespace, console: Console) -> int:
    _check_flags(options)
    if to_stdout := str(options.output) in _STDOUT:
        console = Console(stderr=True, markup=False)
    if options.extractor is not None:
        from coldtune.metrics.extractors import check_name

        check_name(options.extractor, find_home(options))
    from coldtune.training.device import use_threads

    device = choose_device(options.device)
    if device == "cpu":
        use_threads(options.threads)
    runs: list[FinishedTrial] = []
    if options.images:
        from coldtune.cli.evaluate_images import evaluate_pictures

        evaluations = [evaluate_pictures(options, device)]
    else:
        runs, evaluations = _evaluate_runs(options, device)
    _print_table(evaluations, options.markdown, console)
    comparisons = _print_comparisons(evaluations, options.markdown, console)
    settings = _print_settings(runs, evaluations[0], options, console)
    if options.output:
        text = json.dumps(_record(evaluations, comparisons, settings), indent=1, allow_nan=False)
        if to_stdout:
            print(text)
        else:
            write_output(options.output, f"{text}\n")
    return 0


def _check_flags(options: argparse.Namespace) -> None:
    """Raise ValueError for flags that do not go together, before anything is loaded."""
    if bool(options.runs) == bool(options.images):
        raise ValueError("evaluate: name either RUNs, or pictures with --images DIR --reference NAME")
    check_threads(options.threads)
    if options.images and not options.reference:
        raise ValueError("--reference: required with --images. Name the dataset that the pictures are compared with.")
    if options.images and options.num_images is not None:
        raise ValueError("--num-images: all pictures of --images are judged. Leave it out.")
    if options.image_size is not None and not _SMALLEST_PX <= options.image_size <= _LARGEST_PX:
        raise ValueError(f"--image-size {options.image_size}: allowed: {_SMALLEST_PX} to {_LARGEST_PX}")
    others = _FLAGS_OF_RUNS if options.images else _FLAGS_OF_IMAGES
    if given := [flag for name, flag in others.items() if getattr(options, name)]:
        raise ValueError(f"{', '.join(given)}: has no effect {'with' if options.images else 'without'} --images")
    if options.output and str(options.output) not in _STDOUT:
        check_output(options.output, "--output")


def _evaluate_runs(options: argparse.Namespace, device: str) -> tuple[list[FinishedTrial], list[Evaluation]]:
    """Return the runs as they were found, and their evaluations."""
    from dataclasses import replace

    from coldtune.cli.store_lookup import locate_store_of_trials
    from coldtune.metrics.extractors import check_origin
    from coldtune.metrics.judges import describe_foreign
    from coldtune.stages.evaluate import evaluate_runs, with_protocol
    from coldtune.store.store import Store
    from coldtune.studies.trials.lookup import Home, find_run

    names = [*options.runs, *([options.baseline] if options.baseline else [])]
    store = locate_store_of_trials(find_home(options), names, options.store)
    store.check()
    home = Home(find_home(options), options.data_dir, options.tracking_uri, store)
    protocol = (options.split, options.num_images, options.extractor, options.seed, options.against)
    runs = _baseline_first([find_run(name, home) for name in options.runs], options.baseline, home)
    for run in runs:
        if options.extractor is None:
            check_origin(run.config.protocol.extractor, run.name, "name it with --extractor")
    judged = [replace(run, config=with_protocol(run.config, *protocol)) for run in runs]
    if options.extractor is not None:
        for foreign in dict.fromkeys(describe_foreign(options.extractor, run.dataset) for run in runs):
            if foreign:
                warnings.warn(foreign, stacklevel=2)
    return runs, evaluate_runs(judged, Store(store), device)


def _baseline_first(runs: list[FinishedTrial], baseline: str | None, home: Home) -> list[FinishedTrial]:
    """Return the runs with that of `--baseline` first. It may be one of them, or another run."""
    from coldtune.studies.trials.lookup import find_run

    if baseline is None:
        return runs
    first = find_run(baseline, home)
    others = [run for run in runs if run.name != first.name]
    if not others:
        raise ValueError(f"--baseline {baseline}: is the only run. Name another run to compare with it.")
    return [first, *others]


def _print_table(evaluations: list[Evaluation], markdown: bool, console: Console) -> None:
    """Print the sets of images of a single run, or a table whose rows are several runs."""
    from coldtune.reports.evaluation import evaluation_table, runs_table
    from coldtune.stages.chain import SAMPLED
    from coldtune.stages.evaluate import compare_sampled

    first, *others = evaluations
    if others:
        sets = {evaluation.name: evaluation.sets for evaluation in evaluations}
        compared = [comparison for other in others for comparison in compare_sampled(other, first)]
        table = runs_table(sets, SAMPLED, compared, [evaluation.title for evaluation in evaluations])
    else:
        table = evaluation_table(first.sets, first.title)
    if markdown:
        print(table.markdown(), file=console.file)
    else:
        console.print(table)
        console.print()


def _record(
    evaluations: list[Evaluation], comparisons: list[dict[str, Any]], settings: list[dict[str, Any]]
) -> dict[str, Any]:
    """Return everything for JSON. The comparisons are with the baseline."""
    baseline = evaluations[0].name if len(evaluations) > 1 else None
    records = [evaluation.record() for evaluation in evaluations]
    return {"baseline": baseline, "evaluations": records, "comparisons": comparisons, "settings": settings}


def _print_comparisons(evaluations: list[Evaluation], markdown: bool, console: Console) -> list[dict[str, Any]]:
    """Print how each run compares with the first run, and return the comparisons as records."""
    from coldtune.reports.evaluation import comparison_record
    from coldtune.stages.evaluate import compare_sampled, warn_unequal_starts

    first, *others = evaluations
    records: list[dict[str, Any]] = []
    for other in others:
        compared = compare_sampled(other, first)
        lines = [*map(str, compared), compared[0].per_image(), warn_unequal_starts(other, first)]
        for line in filter(None, lines):
            console.print(Text(f"{'- ' * markdown}{line}"), soft_wrap=markdown)
        console.print()
        records += [comparison_record(comparison) for comparison in compared]
    return records


def _print_settings(
    runs: Sequence[FinishedTrial], first: Evaluation, options: argparse.Namespace, console: Console
) -> list[dict[str, Any]]:
    """Print what is known about the settings of runs that were compared, and return it as records."""
    if not runs:
        return []
    from coldtune.cli.evaluate_settings import compare_settings, describe_training

    if len(runs) == 1 and (said := describe_training(runs[0], find_home(options))):
        console.print(Text(f"{'- ' * options.markdown}{said}"), soft_wrap=options.markdown)
    found = compare_settings(runs, first.sets[0].judgement.protocol, find_home(options))
    for each in found:
        of = f"{each.a} and {each.b}: " if len(found) > 1 else ""
        console.print(Text(f"{'- ' * options.markdown}{of}{each.sentence}"), soft_wrap=options.markdown)
    return [each.record() for each in found]

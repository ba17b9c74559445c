"""The parts of benchmarks/gpu.py, each for a process of its own: `gpu_parts.py NAME --result FILE`."""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import math
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import sampling
import torch
import ways
from safetensors.torch import load_file
from ways import ROOT, Case

import training
from coldtune import presets
from coldtune.data import DataConfig, prepare, to_float, to_uint8
from coldtune.diffusion import RestorerConfig, build_degradation
from coldtune.metrics import (
    DISTANCES,
    MemoryCache,
    ProtocolConfig,
    build_extractor,
    extract_features,
    judge,
    reference_features,
    reference_statistics,
    resolve,
)
from coldtune.metrics.protocol import select_reference
from coldtune.stages.chain import SAMPLED, Chain
from coldtune.stages.trial import parse_trial
from coldtune.store.store import Store
from coldtune.training import FolderCheckpoints, TrainingConfig, TrainingTask, train

PASSED, FAILED, MEASURED = "passed", "failed", "measured"
NO_CUDA = "skipped: no CUDA"
Rows = dict[int, dict[str, float]]


@dataclass
class Context:
    """The arguments of a part.

    Attributes:
        scratch: A folder that all parts of a run share.
        folder: A folder of this part.
        seconds: The time limit of the part.
        save: Keeps a result. A later result replaces it.
    """

    device: torch.device
    quick: bool
    scratch: Path
    folder: Path
    seconds: float
    save: Callable[[dict[str, Any]], None]

    @property
    def cuda(self) -> bool:
        return self.device.type == "cuda"


def result(verdict: str, markdown: str, **data: Any) -> dict[str, Any]:
    return {"verdict": verdict, "markdown": markdown, "data": data}


def task_of(case: Case, folder: Path, **settings: Any) -> TrainingTask:
    """Return a training on random images that reports each step."""
    common: dict[str, Any] = {
        "steps": 10,
        "batch_size": case.batch,
        "lr": 1e-4,
        "report_every": 1,
        "validate_every": 0,
        "checkpoint_every": 0,
    }
    return TrainingTask(
        data=DataConfig(name="folder", image_size=case.pixels),
        dataset_path=str(ways.random_dataset(folder, case).path),
        degradation=case.blur,
        restorer=RestorerConfig(size=case.size),
        training=TrainingConfig(**(common | settings)),
    )


def rows_of(task: TrainingTask, device: torch.device, folder: Path | None = None) -> Rows:
    """Train and return the reports by step. With a folder, checkpoints are kept there."""
    rows: Rows = {}
    checkpoints: Any = FolderCheckpoints(folder) if folder else training.NoCheckpoints()
    train(task, checkpoints, lambda step, metrics: rows.__setitem__(step, dict(metrics)), device=device)
    return rows


def worst(rows: Rows, expected: Rows, first: int = 1, last: int = 10) -> float:
    """Return the largest relative difference of the losses of the steps first..last."""
    steps = [step for step in expected if first <= step <= last]
    return max(abs(rows[step]["loss"] / expected[step]["loss"] - 1) for step in steps)


def verdict_of(checks: Sequence[tuple[str, float, float]]) -> tuple[str, str]:
    """Return a verdict and a table. A check is a name, a value and its largest allowed value."""
    lines = ["| check | value | bound, stated beforehand | |", "|:--|--:|--:|:--|"]
    lines += [
        f"| {name} | {value:.3g} | {bound:.3g} | {'ok' if value <= bound else '**over**'} |"
        for name, value, bound in checks
    ]
    good = all(value <= bound for _, value, bound in checks)
    return (PASSED if good else FAILED), "\n".join(lines)


# --- (c) memory


def memory(context: Context) -> dict[str, Any]:
    """Train with too little memory for the batch, and compare the losses with those of an unlimited training."""
    case = Case("micro", 16, 16) if context.quick else Case("small", 32, 256)
    device, half = context.device, case.batch // 2
    whole, peak = _with_peak(task_of(case, context.folder), device)
    halves, peak_of_halves = _with_peak(task_of(case, context.folder, batch_size=half, accumulate=2), device)
    checks = [("loss, two halves against the whole batch, relative", worst(halves, whole), 1e-4)]
    if not context.cuda:
        verdict, table = verdict_of(checks)
        return result(f"{verdict}; the limit itself: {NO_CUDA}", table)
    caught: list[str] = []
    limited: Rows = {}
    for share in (1.0, 0.9, 0.8, 0.7, 0.6):  # libraries take smaller workspaces first, so that the batch still fits
        cap = share * peak_of_halves
        limited, caught = _limited(task_of(case, context.folder), device, cap)
        if caught:
            break
    reported = [int(row["micro_batch"]) for row in limited.values() if "micro_batch" in row]
    checks += [
        ("loss, limited against unlimited, relative", worst(limited, whole), 1e-4),
        ("halvings missing (0: the batch was halved and the report says so)", float(not (caught and reported)), 0),
    ]
    verdict, table = verdict_of(checks)
    text = (
        f"`{case.size}`, {case.shape[1]} px, batch {case.batch}, float32, 10 steps. Reserved memory: "
        f"{ways.bytes_text(peak)} with the whole batch, {ways.bytes_text(peak_of_halves)} with two halves. Limit: "
        f"{ways.bytes_text(cap)} (`set_per_process_memory_fraction`). Reported micro_batch: {reported}.\n\n{table}\n\n"
        + "\n".join(f"> {line}" for line in caught)
    )
    return result(verdict, text, peak=peak, halves=peak_of_halves, cap=cap, micro_batch=reported)


def _with_peak(task: TrainingTask, device: torch.device) -> tuple[Rows, int]:
    if device.type != "cuda":
        return rows_of(task, device), 0
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    rows = rows_of(task, device)
    return rows, torch.cuda.max_memory_reserved(device)


def _limited(task: TrainingTask, device: torch.device, cap: float) -> tuple[Rows, list[str]]:
    """Train while the process may reserve at most `cap` bytes. Return the reports and the warnings."""
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(cap / torch.cuda.get_device_properties(device).total_memory, device)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            rows = rows_of(task, device)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)
    return rows, [str(warning.message) for warning in caught if "out of memory" in str(warning.message)]


# --- (e) judging


def judging(context: Context) -> dict[str, Any]:
    """Judge degraded digits on the device and on the CPU."""
    dataset = prepare(DataConfig(), context.folder, progress=False)
    extractor = build_extractor("digits")
    protocol = resolve(ProtocolConfig(reference="train"), extractor, dataset)
    clean = dataset.split("validation").images[protocol.image_indices()]
    blur = build_degradation(presets.load("digits-quick")["degradation"], dataset.image_shape)
    images = to_uint8(blur(to_float(clean), 3))
    checks = []
    for name, shape in {"digits": (1, 16, 16), "mnist": (1, 28, 28), "cifar10": (3, 32, 32)}.items():
        pixels = torch.randint(0, 256, (512, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
        on = [extract_features(build_extractor(name), pixels, device=place) for place in ("cpu", context.device)]
        checks.append(
            (
                f"features of {name}, relative to the largest",
                float((on[1] - on[0]).abs().max() / on[0].abs().max()),
                1e-4,
            )
        )
    made = []
    for place in (torch.device("cpu"), context.device):
        of_reference = (extractor, select_reference(dataset, protocol), protocol, MemoryCache())
        features = reference_features(*of_reference, device=place)
        moments = reference_statistics(*of_reference, features=features)
        made.append(judge(images, clean, extractor, moments, protocol, features, tuple(DISTANCES), device=place))
    for name, value in made[0].values.items():
        other, images_of = made[1].values[name], len(clean)
        # Precision and recall are shares of the images, so a rounding can move a single image.
        bound = 2 / images_of if name in ("precision", "recall") else 1e-3 * abs(value.value) + 1e-5
        checks.append((f"{name} = {value.value:.6g}", abs(other.value - value.value), bound))
        if value.low is not None and value.high is not None and other.low is not None and other.high is not None:
            apart = max(abs(other.low - value.low), abs(other.high - value.high))
            checks.append((f"{name}, bounds of its interval", apart, max(0.02 * (value.high - value.low), bound)))
    verdict, table = verdict_of(checks)
    judged = f"{len(clean)} digits blurred at t = 3, judged on the CPU and on {context.device}. Values are differences."
    return result(verdict, f"{judged}\n\n{table}")


# --- compiled = eager, resumed = uninterrupted


def equal(context: Context) -> dict[str, Any]:
    """Compare compiled with eager trainings and samplings, then resumed with uninterrupted trainings."""
    case = Case("micro", 16, 16 if context.quick else 64)
    checks, notes = _resumed_checks(context, case, {"dtype": "float32"}), list[str]()
    save = partial_saver(context, checks, notes)
    save()
    if "compile" not in TrainingConfig.model_fields:
        notes.append("compiled against eager: skipped, this version has no key training.compile")
    elif not context.cuda:
        notes.append(f"compiled against eager: {NO_CUDA}")
    else:
        small = Case("small", 32, 64)
        for label, work in (
            ("float32", lambda: _compiled_checks(context, case, "float32", 1e-3, 0.1)),
            ("bfloat16", lambda: _compiled_checks(context, case, "bfloat16", 2e-2, 1.0)),
            ("bfloat16, resumed", lambda: _resumed_checks(context, case, {"dtype": "bfloat16", "compile": "auto"})),
            ("bfloat16, with attention", lambda: _compiled_losses(context, small, "bfloat16", 2e-2)),
        ):
            noted: dict[str, Any] = {}
            try:
                with ways.noting(noted):
                    checks += work()
            except Exception as error:
                traceback.print_exc()
                checks.append((f"{label}: {ways.first_line(error)}", math.inf, 0))
            notes += [f"{label}: {note}" for note in noted.get("notes", [])]
            # Otherwise eager trainings would be compared with themselves.
            gave_up = sum("eager" in note for note in noted.get("notes", []))
            checks.append((f"{label}: warnings that it runs eagerly", float(gave_up), 0))
            save()
    return save()


def partial_saver(
    context: Context, checks: list[tuple[str, float, float]], notes: list[str]
) -> Callable[[], dict[str, Any]]:
    def save() -> dict[str, Any]:
        verdict, table = verdict_of(checks)
        made = result(verdict, "\n".join([table, "", *(f"- {note}" for note in notes)]))
        context.save(made)
        return made

    return save


def _resumed_checks(context: Context, case: Case, settings: dict[str, Any]) -> list[tuple[str, float, float]]:
    label = f"{', '.join(map(str, settings.values()))}"
    long = task_of(case, context.folder, steps=20, checkpoint_every=10, **settings)
    short = replace(long, training=long.training.model_copy(update={"steps": 10}))
    folders = [context.folder / f"{name}-{label}" for name in ("whole", "again", "resumed")]
    whole, again = (rows_of(long, context.device, folder) for folder in folders[:2])
    rows_of(short, context.device, folders[2])
    resumed = rows_of(long, context.device, folders[2])
    bound = 1e-4 if settings["dtype"] == "float32" else 1e-2
    bound = bound if context.cuda else 0.0
    weights = [load_file(folder / "step-00000020" / "weights.safetensors") for folder in folders]
    apart = max(float((weights[2][name] - value).abs().max()) for name, value in weights[0].items())
    return [
        (f"{label}: loss of the same training again, relative", worst(again, whole, 1, 20), bound),
        (f"{label}: loss, resumed against uninterrupted, relative", worst(resumed, whole, 11, 20), bound),
        (f"{label}: weights, resumed against uninterrupted", apart, 10 * bound),
    ]


def _compiled_losses(context: Context, case: Case, dtype: str, bound: float) -> list[tuple[str, float, float]]:
    """Compare the losses of the first 10 steps. The checkpoint of the eager training stays in a folder."""
    eager, fast = (task_of(case, context.folder, dtype=dtype, compile=way) for way in ("off", "auto"))
    expected = rows_of(eager, context.device, context.folder / f"eager-{case}-{dtype}")
    apart = worst(rows_of(fast, context.device), expected)
    return [(f"{case}, {dtype}: loss of the first 10 steps, compiled against eager, relative", apart, bound)]


def _compiled_checks(
    context: Context, case: Case, dtype: str, bound: float, levels: float
) -> list[tuple[str, float, float]]:
    checks = _compiled_losses(context, case, dtype, bound)
    folder, dataset = context.folder / f"eager-{case}-{dtype}", ways.random_dataset(context.folder, case)
    images = []
    for way in ("off", "auto"):
        config = {
            "data": {"name": "folder", "image_size": case.pixels},
            "degradation": case.blur,
            "restorer": {"size": case.size},
            "training": {"dtype": dtype, "compile": way},
            "protocol": {"extractor": "digits" if case.shape[0] == 1 else "cifar10", "num_images": 64},
        }
        chain = Chain(parse_trial(config), dataset, Store(context.folder / "store"), context.device)
        images.append(chain._sample(chain.config.sampler, folder / "step-00000010", lambda _: None)[0].float())
    apart = (images[1] - images[0]).abs()
    checks.append(
        (
            f"{case}, {dtype}: sampled images, mean difference in 8-bit levels (largest {apart.max():.0f})",
            float(apart.mean()),
            levels,
        )
    )
    return checks


# --- timings


def base(context: Context) -> dict[str, Any]:
    """Run benchmarks/training.py with its most important cases, and then start once more from the compile cache."""
    folders = {"TORCHINDUCTOR_CACHE_DIR": "inductor", "TRITON_CACHE_DIR": "triton"}
    if any(any(Path(os.environ.get(key, "/nowhere")).glob("*")) for key in folders):
        # Its own folder, so that the seconds to the first step are those of a first compilation.
        os.environ |= {key: str(context.folder / name) for key, name in folders.items()}
    cases = ["micro-16", "base-32"] if context.cuda else ["micro-16-b4"]
    rounds, seconds = (1, 0.4) if context.cuda else (1, 0.05)
    names = [
        *("plain loop, iterated blur", "plain loop, iterated blur, TF32 convolutions", "plain loop, closed-form blur"),
        *("ours, float32", "ours, bfloat16", "ours, bfloat16, graph only", "ours, bfloat16, compiled"),
    ]
    made = _timings(context, training, cases, names, rounds=rounds, seconds=seconds)
    made["markdown"] += _started_again(context, cases)
    context.save(made)
    return made


def _started_again(context: Context, cases: Sequence[str]) -> str:
    """Return the seconds to the first step of the compiled way in a new process."""
    fast = "ours, bfloat16, compiled"
    if ways.chosen([fast])[0].unavailable(context.device) or not context.cuda:
        return "\n\nA new process with the compile cache: not measured, nothing is compiled here."
    file = context.folder / "again.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "training.py"), "--rounds", "0", "--json", str(file)]
    command += ["--ways", fast, "--cases", *cases]
    subprocess.run(command, check=True, timeout=120, stdout=sys.stderr)
    found = [row for row in json.loads(file.read_text()) if row["way"] == fast]
    lines = [f"{row['case']} {row.get('first_s', math.nan):.2f} s" for row in found]
    return f"\n\nFirst step of `{fast}` in a new process, from the compile cache: {', '.join(lines)}."


def rest(context: Context) -> dict[str, Any]:
    """Run the other cases of benchmarks/training.py, and Algorithm 2 at 128 px."""
    done = ("base-32", "micro-16")
    cases = [name for name in training.CASES["cuda"] if name not in done] if context.cuda else ["tiny-16-b4"]
    order = ["large-128", *(name for name in cases if name != "large-128")] if context.cuda else cases
    rounds, seconds = (2, 0.4) if context.cuda else (1, 0.05)
    short = ["plain loop", "ours, float32", "ours, bfloat16, compiled"]
    return _timings(context, training, order, short, rounds=rounds, seconds=seconds)


def sampled(context: Context) -> dict[str, Any]:
    """Run benchmarks/sampling.py."""
    cases = ["base-32", "micro-16"] if context.cuda else ["micro-16"]
    rounds, seconds = (2, 0.4) if context.cuda else (1, 0.05)
    names = ["plain", "ours, float32", "ours, bfloat16, compiled"]
    images = {} if context.cuda else {"images": 8}
    return _timings(context, sampling, cases, names, rounds=rounds, seconds=seconds, **images)


def _timings(
    context: Context, script: Any, cases: Sequence[str], names: Sequence[str] | None, **how: Any
) -> dict[str, Any]:
    """Measure case by case with the functions of a script, and keep each case as soon as it ends."""
    ways.warm_up(context.device)
    tables, rows, made = list[str](), list[dict[str, Any]](), result(MEASURED, "nothing was measured")

    def keep(case: Case, found: list[dict[str, Any]]) -> dict[str, Any]:
        so_far = [*rows, *found]
        failed = any("failed" in row.get("skipped", "") for row in so_far)
        text = "\n".join([*tables, script.table(case, found), training.rates(so_far, context.device)])
        kept = result("measured, with failed rows" if failed else MEASURED, text, rows=so_far)
        context.save(kept)
        return kept

    for case in map(Case.parse, cases):
        images = how.get("images") or (sampling.IMAGES[case.pixels] if script is sampling else None)
        settings = {**how, "images": images} if images else how
        settings = {**settings, "keep": partial(keep, case)}
        chosen = sorted(ways.chosen(names), key=lambda way: "compile" in way.training and way.parts is None)
        found = script.measure_case(case, chosen, context.device, context.folder, **settings)
        made = keep(case, found)
        rows += found
        tables.append(script.table(case, found))
    return made


# --- (a) sweeps


def sweeps(context: Context) -> dict[str, Any]:
    """Run two studies, kill one of them, resume it, and check MLflow's runs."""
    checks: dict[str, Any] = {}
    threads = [
        threading.Thread(target=_guard, args=(checks, name, work, context), daemon=True)
        for name, work in (("blur, killed and resumed", _killed_sweep), ("samplers", _samplers))
    ]
    try:
        for thread in threads:
            thread.start()
            if not context.cuda:
                thread.join()
        for thread in threads:
            thread.join()
    finally:
        for log in sorted(context.folder.glob("*.txt")):
            print(f"--- {log.name}\n{log.read_text(errors='replace')[-8000:]}", flush=True)
    failed = [name for name, found in checks.items() if "error" in found]
    lines = []
    for name, found in checks.items():
        lines += [f"**{name}**", "", *(f"- {key}: {value}" for key, value in found.items()), ""]
    return result(FAILED if failed else PASSED, "\n".join(lines), **checks)


def _guard(
    checks: dict[str, Any], name: str, work: Callable[[Context, dict[str, Any]], None], context: Context
) -> None:
    found = checks[name] = {}
    try:
        work(context, found)
    except Exception as error:
        traceback.print_exc()
        found["error"] = ways.first_line(error)


def _job(context: Context, name: str, home: Path, *arguments: str) -> list[str]:
    gpus = ["--gpus-per-trial", "0.25"] if context.cuda else []
    return [sys.executable, str(ROOT / "jobs" / name), "--home", str(home), *gpus, *arguments]


def _start(command: Sequence[str], scratch: Path, log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as out:
        return subprocess.Popen(command, stdout=out, stderr=out, env={**os.environ, "RAY_TMPDIR": str(scratch)})


def _killed_sweep(context: Context, found: dict[str, Any]) -> None:
    home, scratch = context.folder / "blur", context.scratch / "rb"
    scratch.mkdir()
    trials, steps = (2, 60) if context.quick else (8, 800)
    settings = {"training.steps": steps, "training.report_every": 10, "training.checkpoint_every": max(20, steps // 10)}
    flags = ["--trials", str(trials), "--confirm", "0", "--set", *(f"{key}={value}" for key, value in settings.items())]
    command, log = _job(context, "sweep_blur.py", home, *flags), context.folder / "blur.txt"
    process = _start(command, scratch, log)
    # Kill it when trials train: some checkpoint exists, and the study has not ended.
    while process.poll() is None and not list(home.glob("store/train/*/*/manifest.json")):
        time.sleep(0.05)
    if process.poll() is not None:
        raise RuntimeError(f"the study ended with {process.returncode} before it could be killed: {_tail(log)}")
    process.kill()
    process.wait()
    found["killed"] = f"SIGKILL of the driver, {len(_finished(home))} trials had finished"
    resumed = _start([*command, "--resume"], scratch, log)
    found["exit code of the resumed study"] = resumed.wait()
    if resumed.returncode:
        raise RuntimeError(f"the resumed study ended with {resumed.returncode}: {_tail(log)}")
    _check_runs(home, trials, found, context, range(10, steps + 1, 10))


def _samplers(context: Context, found: dict[str, Any]) -> None:
    home, scratch = context.folder / "samplers", context.scratch / "rs"
    scratch.mkdir()
    trials, steps = (2, 20) if context.quick else (24, 300)
    log = context.folder / "samplers.txt"
    flags = ["--trials", str(trials), "--set", f"training.steps={steps}", "training.report_every=10"]
    process = _start(_job(context, "sweep_samplers.py", home, *flags), scratch, log)
    found["exit code"] = process.wait()
    if process.returncode:
        raise RuntimeError(f"the study ended with {process.returncode}: {_tail(log)}")
    found["trainings in the store"] = len(list(home.glob("store/train/*")))
    _check_runs(home, trials, found, context, range(10, steps + 1, 10))


def _tail(log: Path) -> str:
    return " / ".join(log.read_text(errors="replace").strip().splitlines()[-12:])


def _finished(home: Path) -> list[Any]:
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    journals = list(home.glob("studies/*/journal.log"))
    if not journals:
        return []
    storage = JournalStorage(JournalFileBackend(str(journals[0])))
    studies = optuna.get_all_study_names(storage)
    if not studies:
        return []
    trials = optuna.load_study(study_name=studies[0], storage=storage).trials
    return [trial for trial in trials if trial.state == optuna.trial.TrialState.COMPLETE]


def _check_runs(home: Path, trials: int, found: dict[str, Any], context: Context, steps: Sequence[int]) -> None:
    """Compare MLflow's runs with the study's trials. Raises RuntimeError if they differ."""
    from mlflow import MlflowClient

    complete = _finished(home)
    found["complete trials"] = f"{len(complete)} of {trials}"
    client = MlflowClient(f"sqlite:///{home}/mlflow.db")
    (experiment,) = [item for item in client.search_experiments() if item.name == "coldtune"]
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    by_kind: dict[str, list[Any]] = {}
    for run in runs:
        by_kind.setdefault(run.data.tags.get("coldtune.kind", "?"), []).append(run)
    states = {run.info.status for run in runs}
    found["MLflow's runs"] = ", ".join(f"{len(kind)} {name}" for name, kind in sorted(by_kind.items()))
    found["states of the runs"] = ", ".join(sorted(states))
    twice = missing = 0
    for run in by_kind.get("trial", []):
        logged = sorted(row.step for row in client.get_metric_history(run.info.run_id, "loss"))
        twice += len(logged) - len(set(logged))
        missing += len(set(steps) - set(logged))
    found["steps of the loss that are missing, or there twice"] = f"{missing}, {twice}"
    devices = _devices(home)
    found["devices that the store names"] = ", ".join(sorted(devices))
    values = [trial.values[0] for trial in complete]
    if values:
        found["FID, best and worst trial"] = f"{min(values):.3f}, {max(values):.3f}"
    kinds = {name: len(kind) for name, kind in by_kind.items()}
    if len(complete) != trials or kinds.get("trial") != trials or kinds.get("study") != 1:
        raise RuntimeError(f"of {trials} trials {len(complete)} are complete, and MLflow has {kinds}")
    if states != {"FINISHED"} or missing:
        raise RuntimeError(f"MLflow's runs are {states}, and {missing} steps are missing")


def _devices(home: Path) -> set[str]:
    """Return the devices on which the checkpoints in a home's store were made."""
    found = set()
    for path in home.glob("store/train/*/*/manifest.json"):
        with contextlib.suppress(OSError, ValueError, KeyError):
            found.add(str(json.loads(path.read_text())["made"]["device"]))
    return found


# --- (b) NCCL


def nccl(context: Context) -> dict[str, Any]:
    """Train through Ray Train with a worker on the GPU, and compare with the single process."""
    os.environ["RAY_TMPDIR"] = str(context.scratch)
    case = Case("micro", 16, 8 if context.quick else 64)
    task = task_of(case, context.folder, steps=10 if context.quick else 50, validate_every=10)
    single = rows_of(task, context.device)
    notes = []
    if context.cuda:
        notes.append(f"an all-reduce over NCCL {'.'.join(map(str, torch.cuda.nccl.version()))}: {_all_reduce(context)}")
    from coldtune.studies.execution.cluster import connect

    rows: Rows = {}
    began = time.monotonic()
    with connect("gpu-benchmark"):
        notes.append(f"Ray started in {time.monotonic() - began:.1f} s")
        from coldtune.training.distributed import train_distributed

        began = time.monotonic()
        train_distributed(
            task,
            FolderCheckpoints(context.folder / "distributed"),
            lambda step, metrics: rows.__setitem__(step, dict(metrics)),
            workers=1,
            name="nccl",
            storage_path=context.folder / "train",
            gpus_per_worker=1.0 if context.cuda else 0.0,
            threads=None if context.cuda else torch.get_num_threads(),
        )
        notes.append(f"training through Ray Train took {time.monotonic() - began:.1f} s")
    checks = [
        ("steps that were not reported", float(len(single.keys() - rows.keys())), 0),
        ("loss of the first 10 steps, relative", worst(rows, single), 1e-4 if context.cuda else 0),
        ("loss of all steps, relative", worst(rows, single, 1, 50), 1e-2 if context.cuda else 0),
    ]
    verdict, table = verdict_of(checks)
    note = "A group of one worker joins NCCL, but exchanges no gradients. Two workers need two cards."
    return result(verdict, "\n".join([table, "", *(f"- {text}" for text in notes), f"- {note}"]))


def _all_reduce(context: Context) -> str:
    import torch.distributed as dist

    store = dist.FileStore(str(context.folder / "rendezvous"), 1)
    dist.init_process_group("nccl", store=store, rank=0, world_size=1, device_id=context.device)
    try:
        values = torch.arange(4.0, device=context.device)
        dist.all_reduce(values)
        return "as expected" if values.tolist() == [0, 1, 2, 3] else f"WRONG: {values.tolist()}"
    finally:
        dist.destroy_process_group()


# --- (d) memory over many trials


def leak(context: Context) -> dict[str, Any]:
    """Run trials of rising size in a single process, as a trial process does, and read its GPU memory after each."""
    count, begun = 3 if context.quick else 30, time.monotonic()
    sizes = ["micro", "tiny", "small"]
    readings = []
    compiled = context.cuda and "compile" in TrainingConfig.model_fields
    for number in range(count + 1):
        size, batch = sizes[number * len(sizes) // (count + 1)], 4 if context.quick else 32 + 16 * number
        # Every fifth trial is compiled. These have equal shapes, so that the seconds of a compilation pass once.
        way = {"dtype": "bfloat16", "compile": "auto"} if compiled and number % 5 == 4 else {}
        if way or number == count:
            size, batch = "micro", 4 if context.quick else 64
        _leak_trial(context, size, batch, number, way)
        readings.append({"trial": number + 1, "size": size, "batch": batch, "compiled": bool(way), **_memory(context)})
        if number % 5 == 4 or number == count:
            gc.collect()  # only now and then, because a trial process never calls it
            readings[-1]["collected"] = _memory(context)["allocated"]
            context.save(_leak_result(context, readings))
        if time.monotonic() - begun > 0.85 * context.seconds:
            break
    return _leak_result(context, readings)


def _leak_trial(context: Context, size: str, batch: int, seed: int, way: dict[str, Any]) -> None:
    case = Case(size, 16 if context.quick else 32, batch)
    dataset = ways.random_dataset(context.folder, case, 512)
    extractor, images = "digits" if case.shape[0] == 1 else "cifar10", 8 if context.quick else 256
    config = {
        "data": {"name": "folder", "image_size": case.pixels},
        "degradation": {**case.blur, "steps": 3 if context.quick else 10},
        "restorer": {"size": size},
        "training": {"steps": 3 if context.quick else 12, "batch_size": batch, "seed": seed, "validate_every": 0} | way,
        "protocol": {"extractor": extractor, "num_images": images},
    }
    chain = Chain(parse_trial(config), dataset, Store(context.folder / "store"), context.device)
    chain.run(lambda *given: train(*given, device=context.device), lambda *_: None)


def _memory(context: Context) -> dict[str, int]:
    """Return the bytes that tensors take and that torch reserves. On a CPU, the memory of the process."""
    if not context.cuda:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return {"allocated": pages * os.sysconf("SC_PAGE_SIZE"), "reserved": 0, "peak": 0}
    torch.cuda.synchronize()
    made = {
        "allocated": torch.cuda.memory_allocated(),
        "reserved": torch.cuda.memory_reserved(),
        "peak": torch.cuda.max_memory_allocated(),
    }
    torch.cuda.reset_peak_memory_stats()
    return made


def _leak_result(context: Context, readings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    # Stated beforehand: between trials only tables and the extractor stay, well below 64 MiB.
    bound = 64 * 2**20
    left = [reading["collected"] for reading in readings if "collected" in reading] or [0]
    over = max(left) > bound if context.cuda else False
    lines = [
        "| trial | size | batch | compiled | tensors after it | after gc.collect() | peak in it | reserved after it |",
        "|--:|:--|--:|:--|--:|--:|--:|--:|",
    ]
    shown = [r for i, r in enumerate(readings) if i % 3 == 0 or r["compiled"] or i >= len(readings) - 2]
    for r in shown:
        sizes = [ways.bytes_text(r.get(name)) for name in ("allocated", "collected", "peak", "reserved")]
        cells = [str(r["trial"]), r["size"], str(r["batch"]), "yes" if r["compiled"] else "no", *sizes]
        lines.append(f"| {' | '.join(cells)} |")
    text = (
        f"{len(readings)} trials (train, sample, judge) in one process. Bound, stated beforehand: tensors that stay "
        f"after a trial and gc.collect() take at most {ways.bytes_text(bound)}. Largest: {ways.bytes_text(max(left))}. "
        "The reserved memory is the cache of torch's allocator. Other processes cannot use it.\n\n" + "\n".join(lines)
    )
    if not context.cuda:
        text = "No CUDA: the memory of the process stands in for that of a GPU, without a verdict.\n\n" + text
    verdict = (FAILED if over else PASSED) if context.cuda else NO_CUDA
    return result(verdict, text, readings=list(readings))


# --- quality


def quality(context: Context) -> dict[str, Any]:
    """Train `digits-quick` with several seeds in two ways, and compare the FIDs of the sampled images."""
    ours = {"eager, float32": {"dtype": "float32"}}
    fast = {"dtype": "bfloat16", "compile": "auto"}
    skipped = "compile" not in TrainingConfig.model_fields
    if skipped or not context.cuda:
        fast = {"dtype": "bfloat16"}
    ours["bfloat16" if "compile" not in fast else "compiled, bfloat16"] = fast
    dataset = prepare(DataConfig(), context.folder, progress=False)
    store, fids = Store(context.folder / "store"), {name: list[float]() for name in ours}
    most, least, begun = (2, 2, time.monotonic()) if context.quick else (20, 5, time.monotonic())
    made = result(MEASURED, "")
    for seed in range(most):
        # The number of seeds follows from the time alone, never from the values.
        if seed >= least and time.monotonic() - begun > 0.7 * context.seconds:
            break
        for name, way in ours.items():
            tree = presets.load("digits-quick")
            steps = 10 if context.quick else tree["training"]["steps"]
            tree["training"] |= {"seed": seed, "steps": steps, "validate_every": 0, **way}
            chain = Chain(parse_trial(tree), dataset, store, context.device)
            checkpoint = chain.train(lambda *given: train(*given, device=context.device), lambda *_: None)
            measured = chain.measure(SAMPLED, chain.sample(SAMPLED, chain.config.sampler, checkpoint))
            fids[name].append(json.loads((measured / "metrics.json").read_text())["values"]["fid"]["value"])
        if seed >= 1:
            made = _quality_result(fids)
            context.save(made)
    if skipped or not context.cuda:
        why = "this version has no key training.compile" if skipped else "no CUDA"
        made["markdown"] += f"\n\nCompiled trainings: skipped, {why}."
    return made


def _quality_result(fids: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Return means, deviations and the verdict. Its margin is one standard deviation of the eager trainings."""
    from scipy import stats

    (first, eager), (second, fast) = fids.items()
    count, margin = len(eager), statistics.stdev(eager)
    lines = ["| way | trainings | FID, mean | sd | all |", "|:--|--:|--:|--:|:--|"]
    for name, values in fids.items():
        listed = ", ".join(f"{value:.3f}" for value in values)
        lines.append(
            f"| {name} | {count} | {statistics.mean(values):.4f} | {statistics.stdev(values):.4f} | {listed} |"
        )
    pairs = [b - a for a, b in zip(eager, fast, strict=True)]
    difference = statistics.mean(fast) - statistics.mean(eager)
    intervals = {}
    for name, error, freedom in (
        ("independent", math.sqrt((statistics.variance(eager) + statistics.variance(fast)) / count), 2 * count - 2),
        ("paired by seed", statistics.stdev(pairs) / math.sqrt(count), count - 1),
    ):
        half = float(stats.t.ppf(0.95, freedom)) * error
        intervals[name] = (difference - half, difference + half)
    low, high = intervals["paired by seed"]
    verdict = "undecided"
    if -margin < low and high < margin:
        verdict = "practically equal within one sd of the training seeds"
    elif low > margin or high < -margin:
        verdict = "different by more than one sd of the training seeds"
    shown = "; ".join(f"{name} [{a:+.4f}, {b:+.4f}]" for name, (a, b) in intervals.items())
    text = (
        "\n".join(lines)
        + f"\n\nMargin, stated beforehand: one standard deviation of the trainings `{first}`, {margin:.4f}. "
        f"Difference of the means, `{second}` minus `{first}`: {difference:+.4f}. Its 90 % intervals: {shown}. "
        "Trainings of one seed begin with the same weights and see the same images, so the verdict is that of the "
        f"paired interval (two one-sided tests at 5 %): **{verdict}**."
    )
    return result(f"measured: {verdict}", text, fids=dict(fids), margin=margin, intervals=intervals)


# --- packing


def packing(context: Context) -> dict[str, Any]:
    """Measure 1, 2, 4 and 8 processes that train at once on one card, with and without CUDA MPS."""
    from packing import measure

    return measure(context)


PARTS: dict[str, Callable[[Context], dict[str, Any]]] = {
    "memory": memory,
    "judging": judging,
    "equal": equal,
    "base": base,
    "sampling": sampled,
    "sweeps": sweeps,
    "nccl": nccl,
    "leak": leak,
    "quality": quality,
    "packing": packing,
    "rest": rest,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=PARTS)
    parser.add_argument("--result", type=Path, required=True)
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--device")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    device = ways.pick_device(options.device)
    facts = [f"- Machine: {ways.machine(device)}", f"- Commit: {ways.commit()}"]

    def save(made: dict[str, Any]) -> None:
        fresh = options.result.with_suffix(".new")
        fresh.write_text(json.dumps({**made, "facts": facts}, default=str))
        fresh.replace(options.result)

    folder = options.scratch / options.name
    folder.mkdir(exist_ok=True)
    # A training in a thread of its own must not use all cores, because other parts run beside it.
    torch.set_num_threads(4 if device.type == "cuda" else 1)
    context = Context(device, options.quick, options.scratch, folder, options.seconds, save)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        save(PARTS[options.name](context))
    except Exception:
        text = traceback.format_exc()
        print(text, file=sys.stderr)
        before = json.loads(options.result.read_text()) if options.result.exists() else result("", "")
        save(result(FAILED, f"{before['markdown']}\n\n```\n{text[-3000:]}\n```", **before["data"]))
        sys.exit(1)


if __name__ == "__main__":
    main()

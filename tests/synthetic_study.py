"""A home with a study of any number of trials. Its values are made up and written straight into its journal."""

from __future__ import annotations

import random
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from coldtune.config import plain
from coldtune.data import Dataset, prepared
from coldtune.metrics import Protocol
from coldtune.studies.space.space import Space
from coldtune.studies.spec.build import build_spec
from coldtune.studies.spec.folder import StudyFolder
from coldtune.studies.storage.backends import open_storage
from coldtune.studies.storage.outcome import Effort, TrialOutcome
from coldtune.studies.storage.record import write_study
from coldtune.studies.trials.ledger import Ledger, open_ledger

SPACE = """
base: digits-quick
vary:
  degradation.steps: {low: 10, high: 40, step: 5}
  training.lr: {low: 0.0001, high: 0.01, log: true}
  training.loss: {choices: [l1, l2]}
  sampler.algorithm: {choices: [direct, naive, tacos]}
  sampler.num_steps: {choices: [null, 2, 5], when: {sampler.algorithm: [naive, tacos]}}
"""
ENVIRONMENT = {
    "commit": "0123456789abcdef0123456789abcdef01234567", "coldtune": "1.0", "torch": "2.11.0", "python": "3.12.1",
    "device": "a CPU", "host": "node-a", "system": "Linux", "cpus": 2, "threads": 1, "workers": 1,
}  # fmt: skip
RUNG_METRIC = "kid"


def open_study(home: Path, digits_home: Path, text: str = SPACE, **more: Any) -> tuple[StudyFolder, Ledger]:
    """Create a study in a home. `more` are arguments of `open_ledger`, `settings`, `job`, `command` and `trials`."""
    if not (home / "data").exists():
        shutil.copytree(digits_home / "data", home / "data")
    dataset = Dataset.open(prepared(home, "digits")[0])
    (home / "space.yaml").write_text(text)
    spec = build_spec(more.pop("job", "made-up"), home / "space.yaml", settings=more.pop("settings", ()))
    folder = StudyFolder(home, spec.name)
    start = {"trials": more.pop("trials", 5), "fingerprint": dataset.fingerprint, "storage": None}
    folder.save(spec, {**start, "command": more.pop("command", "python jobs/made_up.py"), "tracking_uri": None})
    space = Space(spec.space, spec.base, dataset.image_shape)
    ledger = open_ledger(spec.name, spec, space, open_storage(folder.path), **more)
    if replicates := more.get("replicates"):
        write_study(ledger.study, replicates=[replicates])
    return folder, ledger


def protocol_of(home: Path) -> Protocol:
    """Return a protocol of the digits in a home."""
    dataset = Dataset.open(prepared(home, "digits")[0])
    return Protocol(
        extractor="digits", extractor_sha256="ab" * 32, extractor_input="as given", dim=64, dataset="digits",
        dataset_fingerprint=dataset.fingerprint, image_shape=dataset.image_shape, resize="bilinear",
        split="validation", num_images=300, reference_images=300, seed=0,
    )  # fmt: skip


def outcome(home: Path, fid: float, nfe: float = 20.0, **more: Any) -> TrialOutcome:
    """Return the outcome of a trial, without any images. `more` are further fields."""
    metrics = {"fid": fid, "fid_low": 0.8 * fid, "fid_high": 1.2 * fid, "ssim": 0.9, "rmse": 0.1, "nfe": nfe}
    made = TrialOutcome(
        {**metrics, "fid_direct": fid + 1, "fid_degraded": 147.0},
        plain(protocol_of(home)),
        computed={"device": "cpu", "threads": 1},
        environment=ENVIRONMENT,
        effort=Effort(seconds=20.0, trained=15.0),
    )
    return replace(made, **more)


def fill(ledger: Ledger, home: Path, count: int, seed: int = 0) -> None:
    """Add trials with made-up values: seven tenths finished, a fifth pruned, and a tenth failed.

    FID falls with T, is better with TACoS, and does not depend on the loss.
    """
    rng, space = random.Random(seed), ledger.space
    template = outcome(home, 1.0)
    trials = []
    for number in range(count):
        point = space.first if number == 0 else space.sample(rng)
        names = {"direct": 1.5, "naive": 4.0, "tacos": 1.0}
        fid = names[point["sampler"]] * 20 / point["T"] * rng.lognormvariate(0, 0.2)
        nfe = 1.0 if point["sampler"] == "direct" else float(point.get("num_steps") or point["T"])
        rungs = {step: {RUNG_METRIC: fid / 100 * (1 + 100 / step)} for step in (50, 100)}
        metrics = {**template.metrics, "fid": fid, "fid_low": 0.8 * fid, "fid_high": 1.2 * fid, "nfe": nfe}
        kind = rng.random() if number else 0.0
        state, attributes = TrialState.COMPLETE, replace(template, metrics=metrics, rungs=rungs).attributes()
        if kind > 0.9:
            state, attributes = TrialState.FAIL, {"reason": "RuntimeError: made up"}
        elif kind > 0.7:
            state, attributes = TrialState.PRUNED, {"reason": "at step 50 of 300: KID 0.1", "rungs": rungs_of(rungs)}
        values = {"fid": fid, "nfe": nfe}
        found = [values[objective.metric] for objective in ledger.spec.objectives]
        trials.append(_trial(ledger, point, state, found, attributes))
    ledger.study.add_trials(trials)


def rungs_of(rungs: Mapping[int, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Return the first rung as it is stored."""
    first = min(rungs)
    return {str(first): dict(rungs[first])}


def _trial(
    ledger: Ledger, point: Mapping[str, Any], state: TrialState, values: list[float], attributes: dict[str, Any]
) -> optuna.trial.FrozenTrial:
    return optuna.trial.create_trial(
        params=dict(point),
        distributions={name: ledger.space.distributions[name] for name in point},
        state=state,
        values=values if state == TrialState.COMPLETE else None,
        user_attrs=attributes,
    )

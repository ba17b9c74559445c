"""A home with a finished study: real trainings of a few steps on digits and a real ledger, without a cluster."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import yaml

from coldtune.config import plain
from coldtune.data import Dataset, prepared
from coldtune.stages.chain import Chain, Outcome
from coldtune.stages.trial import TrialConfig
from coldtune.store.provenance import keep_environment
from coldtune.store.store import Store
from coldtune.studies.space.space import Space
from coldtune.studies.spec.build import build_spec
from coldtune.studies.spec.folder import StudyFolder
from coldtune.studies.storage.backends import open_storage
from coldtune.studies.storage.outcome import TrialOutcome
from coldtune.studies.storage.record import write_study
from coldtune.studies.trials.ledger import open_ledger
from coldtune.training.loop import train

QUICK = [
    "training.steps=4", "training.batch_size=16", "training.checkpoint_every=4", "training.validate_every=0",
    "training.report_every=4", "degradation.steps=4", "protocol.num_images=260",
    "protocol.reference=same",
]  # fmt: skip
SPACE = """
base: digits-quick
vary:
  sampler.num_steps: {choices: [null, 2, 3]}
"""


@dataclass(frozen=True)
class Finished:
    """A study in a home. Trials 0 and 1 have finished, trial 2 has failed, and trial 3 is running."""

    home: Path
    study: str
    configs: list[TrialConfig]
    outcomes: list[Outcome]
    dataset: Dataset

    def config_file(self, folder: Path, number: int = 0, **changes: dict[str, object]) -> Path:
        """Write the config.yaml of a trial, with the changes `section={key: value}`, and return its path."""
        tree = plain(self.configs[number])
        for section, values in changes.items():
            tree[section] = {**(tree[section] or {}), **values}
        folder.mkdir(exist_ok=True)
        (folder / "config.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
        return folder / "config.yaml"


@dataclass(frozen=True)
class Replicated:
    """A study in a home whose settings 0 and 1 have three trainings each. They differ in the sampler alone.

    Attributes:
        values: By name of a trial, such as `1.2`, its metrics.
    """

    home: Path
    study: str
    values: dict[str, dict[str, float]]
    configs: dict[str, TrialConfig]


def make_replicated(home: Path, finished: Finished) -> Replicated:
    """Make a study of two settings with three trainings each. The work of `finished` is found."""
    for name in ("data", "store"):
        shutil.copytree(finished.home / name, home / name)
    (home / "space.yaml").write_text(SPACE.replace("null, 2, 3", "null, 2") + "search: {algorithm: grid}\n")
    dataset = Dataset.open(prepared(home, "digits")[0])
    spec = build_spec("replicated", home / "space.yaml", settings=QUICK)
    folder = StudyFolder(home, spec.name)
    start = {"trials": 2, "fingerprint": dataset.fingerprint, "storage": None, "tracking_uri": None}
    folder.save(spec, {**start, "command": "python replicated.py", "replicates": 3})
    space = Space(spec.space, spec.base, dataset.image_shape)
    ledger = open_ledger(spec.name, spec, space, open_storage(folder.path), replicates=3)
    write_study(ledger.study, trials=2, replicates=[3])
    values, configs = {}, {}
    store = Store(home / "store")
    environment = keep_environment(folder.environments)
    while ledger.wanted(2) > 0:
        asked = ledger.ask(2)
        assert asked is not None
        chain = Chain(asked.config, dataset, store)
        outcome = chain.run(train, lambda *_: None)
        values[asked.label], configs[asked.label] = outcome.metrics, asked.config
        address = store.files.address
        told = TrialOutcome(
            outcome.metrics,
            plain(outcome.protocol),
            images={name: address(path) for name, path in outcome.images.items()},
            measured={name: address(path) for name, path in outcome.measured.items()},
            checkpoint=address(outcome.checkpoint),
            computed=plain(chain.compute),
            environment=environment,
        )
        ledger.complete(asked.number, told)
    return Replicated(home, spec.name, values, configs)


def make(home: Path, digits_home: Path) -> Finished:
    """Make the study in an empty home."""
    shutil.copytree(digits_home / "data", home / "data")
    dataset = Dataset.open(prepared(home, "digits")[0])
    (home / "space.yaml").write_text(SPACE)
    spec = build_spec("quick", home / "space.yaml", settings=QUICK)
    folder = StudyFolder(home, spec.name)
    start = {"trials": 4, "fingerprint": dataset.fingerprint, "storage": None, "tracking_uri": None}
    folder.save(spec, {**start, "command": "python quick.py"})
    space = Space(spec.space, spec.base, dataset.image_shape)
    ledger = open_ledger(spec.name, spec, space, open_storage(folder.path))
    ledger.study.enqueue_trial({"num_steps": 2})
    configs, outcomes = [], []
    for number in range(2):
        asked = ledger.ask()
        assert asked.number == number
        outcome = Chain(asked.config, dataset, Store(home / "store")).run(train, lambda *_: None)
        ledger.complete(asked.number, TrialOutcome(outcome.metrics, plain(outcome.protocol)))
        configs.append(asked.config)
        outcomes.append(outcome)
    ledger.fail(ledger.ask().number, "RuntimeError: boom")
    ledger.ask()
    return Finished(home, spec.name, configs, outcomes, dataset)

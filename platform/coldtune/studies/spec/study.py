"""The specification of a study: its space, base, objectives, search and seed. Its name follows from a hash of these."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, model_validator

from coldtune.config import Config, Neutral, digest, identity, parse, plain
from coldtune.dotted import leaves
from coldtune.environment import MOST_THREADS
from coldtune.files import write_file
from coldtune.readback import checked, decode, read_bytes
from coldtune.stages.trial import identity_of_tree, parse_trial
from coldtune.studies.search.config import SearchConfig
from coldtune.studies.search.objective import Objective
from coldtune.studies.search.pruning_config import PruningConfig
from coldtune.studies.space.config import SpaceConfig
from coldtune.studies.space.design import DesignRecord
from coldtune.studies.spec.ablation import AblationRecord
from coldtune.studies.spec.comparisons import Comparisons
from coldtune.studies.spec.confirmation import Confirmation
from coldtune.studies.spec.replicates import MOST_REPLICATES, Racing
from coldtune.yaml_files import read_yaml

SPEC_FILE = "spec.yaml"
SEEDS = 2**32
"""The number of seeds that a search may have, from 0 on."""


class StudySpec(Config):
    """Everything that determines which trials a study asks and how it judges them.

    The number of trials, the home, the workers and the servers do not belong to it. The same spec started again
    resumes the study. The number of replicates can grow like the number of trials, so it does not tell studies apart.

    Attributes:
        job: The name of the job, with which the study's default name begins.
        space: The search space.
        base: The trial configuration around which the space lies.
        objective: The quantity to improve. If there are several objectives, this is the first.
        also: More objectives. The search then looks for trade-offs: there is no best trial, but a Pareto front of the
            trials that no other trial beats in every objective.
        search: How the study chooses its points.
        pruning: Which trials end before their training does, judged at the base's rungs.
        seed: The seed of the search.
        imports: The studies with whose trials this study began. They are part of the spec, because a search depends on
            the trials that it knows. The same command resumes the study, and another `--import` starts another study.
            The trials are copied when the study begins, so later changes of the imported studies have no effect.
        table: The table of the paper that the variants fill (`coldtune.studies.designs.paper_table`).
        design: The design whose arms the variants are (`coldtune.studies.space.design`).
        ablation: The changes between two settings of another study, whose steps the variants are
            (`coldtune.studies.spec.ablation`).
        confirmation: The settings of a search that new trainings judge on the test split
            (`coldtune.studies.spec.confirmation`).
        threads: The CPU threads of every process that computes on the CPU. They decide the last bits of all results.
            None for a study that began when the number followed from the trials that ran at once.
        replicates: The trainings of each setting with which the study began. Each has another training seed.
            `StudyRecord.replicates` has the number that holds now. For a race, it is the most that a setting can get.
        race: The ends of a race (`replicates: {first: 2, most: 10}`). None for a fixed number of trainings.
        comparisons: What the verdicts of a study with replicates compare, fixed before the first training.
    """

    job: str
    space: SpaceConfig
    base: dict[str, Any]
    objective: Objective = Field(default_factory=Objective)
    also: tuple[Objective, ...] = ()
    search: SearchConfig = Field(default_factory=SearchConfig)
    pruning: PruningConfig = Field(default_factory=PruningConfig)
    seed: int = Field(default=0, ge=0, lt=SEEDS)
    imports: tuple[str, ...] = ()
    table: str | None = None
    design: Annotated[DesignRecord | None, Neutral(None)] = None
    ablation: Annotated[AblationRecord | None, Neutral(None)] = None
    confirmation: Annotated[Confirmation | None, Neutral(None)] = None
    threads: Annotated[int | None, Neutral(None)] = Field(default=None, ge=1, le=MOST_THREADS)
    replicates: Annotated[int, Neutral(1)] = Field(default=1, ge=1, le=MOST_REPLICATES)
    race: Annotated[Racing | None, Neutral(None)] = None
    comparisons: Annotated[Comparisons, Neutral(Comparisons())] = Comparisons()

    @model_validator(mode="after")
    def _check_metrics_differ(self) -> StudySpec:
        metrics = [objective.metric for objective in self.objectives]
        if len(set(metrics)) < len(metrics):
            raise ValueError(f"objective = {metrics}: each metric once")
        return self

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """All objectives. The first is `objective`."""
        return (self.objective, *self.also)

    @property
    def name(self) -> str:
        """The study's default name: the job's name and six characters of the hash of the spec."""
        # A race has the name of the study with a fixed number of trainings, so that neither can become the other.
        left_out = ("race", *("imports",) * (not self.imports), *("threads",) * (self.threads == 1))
        named = {key: value for key, value in self.identity().items() if key not in left_out}
        return f"{self.job}-{digest(named)[:6]}"

    def identity(self) -> dict[str, Any]:
        """Return what tells this study from others: its values, without fields that have their neutral value.

        The number of replicates is left out, so that a finished study can be given more of them.
        """
        told = {**identity(self), "base": identity_of_tree(self.base)}
        return {key: value for key, value in told.items() if key != "replicates"}

    def with_replicates(self, replicates: int | Racing) -> StudySpec:
        """Return this spec with a number of trainings of each setting, or with a race."""
        race = replicates if isinstance(replicates, Racing) else None
        most = replicates.most if isinstance(replicates, Racing) else replicates
        return self.model_copy(update={"race": race, "replicates": most})

    def with_threads_of(self, stored: StudySpec) -> StudySpec:
        """Return this spec for the study that began with `stored`.

        A study that began before threads were recorded goes on, on one thread, and uses the work that it has.
        """
        began_before = stored.threads is None and self.threads == 1
        return self.model_copy(update={"threads": None}) if began_before else self

    def save(self, folder: Path) -> None:
        """Write `spec.yaml` into the study's folder. If the process is killed, the file is complete or does not exist.

        Args:
            folder: The study's folder, which must exist.
        """
        text = yaml.safe_dump(plain(self), sort_keys=False, allow_unicode=True)
        comment = "# The specification of this study. It is written once and read on resume.\n"
        write_file(folder / SPEC_FILE, comment + text, durable=True)

    @classmethod
    def load(cls, folder: Path) -> StudySpec:
        """Read the spec of the study in `folder`.

        Raises:
            FileNotFoundError: If there is no such file.
            UnreadableError: If the file does not hold the spec of a study. The message names it.
        """
        path = folder / SPEC_FILE
        hint = "Restore it. The file is a copy of the spec in the study's storage, and is never changed by hand."
        decode(read_bytes(path, hint=hint), path, hint)  # no folder, no pipe, not empty, no gigabytes

        def build() -> StudySpec:
            spec = parse(cls, read_yaml(path))
            parse_trial(spec.base)
            return spec

        return checked(path, build, hint)

    def differences(self, other: StudySpec) -> list[str]:
        """List the keys in which two specs differ, as `key: value here, there VALUE OF OTHER`."""
        here = self.with_threads_of(other)
        mine, theirs = dict(leaves(here.identity())), dict(leaves(other.identity()))
        return [
            f"{key}: {mine.get(key)!r}, there {theirs.get(key)!r}"
            for key in sorted({*mine, *theirs})
            if mine.get(key) != theirs.get(key)
        ]


def describe_conflict(name: str, where: str, differences: Iterable[str]) -> str:
    """Return the error message for a study name that is already used with another spec.

    Args:
        name: The name of the study.
        where: Where the other spec is stored.
        differences: The result of `StudySpec.differences`.
    """
    return (
        f"--study {name}: {where} holds a study with another spec. Use the same settings, or another name. To begin "
        f"the other study with the trials of this study, add --import {name}. {'; '.join(differences)}"
    )

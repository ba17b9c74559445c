"""What a study is: its space, base, protocol and seed. Its identity follows from that, and from nothing else."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, model_validator

from coldtune import presets
from coldtune.config import Config, digest, parse, plain
from coldtune.dotted import leaves
from coldtune.studies.search.config import SearchConfig
from coldtune.studies.search.objective import Objective
from coldtune.studies.search.pruning_config import PruningConfig
from coldtune.studies.space.config import SpaceConfig

SPEC_FILE = "spec.yaml"


class StudySpec(Config):
    """A study: everything that determines which trials it asks and how it judges them.

    also: further objectives, which turn the search into one for trade-offs: no trial is best then, but some are not
    beaten in every objective by another (the Pareto front).

    imports: the studies whose trials this one began with. Part of what a study is, since what a search asks depends on
    what it knows: the same command goes on with the same study, one that imports something else is another study. What
    was taken over stands in the study from its beginning, so that a later change of those studies changes nothing.

    pruning: which trials end before their training does, judged at the base's rungs.

    table: which of the paper's tables its variants fill (`coldtune.studies.designs.paper_table`). The number of trials,
    the home, the workers and the servers are not part of it: the same spec run again resumes.
    """

    job: str
    space: SpaceConfig
    base: dict[str, Any]
    objective: Objective = Field(default_factory=Objective)
    also: tuple[Objective, ...] = ()
    search: SearchConfig = Field(default_factory=SearchConfig)
    pruning: PruningConfig = Field(default_factory=PruningConfig)
    seed: int = Field(default=0, ge=0, lt=2**32)
    imports: tuple[str, ...] = ()
    table: str | None = None

    @model_validator(mode="after")
    def _different(self) -> StudySpec:
        metrics = [objective.metric for objective in self.objectives]
        if len(set(metrics)) < len(metrics):
            raise ValueError(f"objective = {metrics}: each metric once")
        return self

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """All objectives, the one that names the best trial first."""
        return (self.objective, *self.also)

    @property
    def name(self) -> str:
        """The default name: the job's, and six characters of the hash of the spec."""
        identity = {key: value for key, value in plain(self).items() if key != "imports" or value}
        return f"{self.job}-{digest(identity)[:6]}"

    def save(self, folder: Path) -> None:
        """Write `spec.yaml` into a study's folder; it is there as a whole or not at all, whenever one is killed."""
        text = yaml.safe_dump(plain(self), sort_keys=False, allow_unicode=True)
        scratch = folder / f".{SPEC_FILE}.{os.getpid()}"
        scratch.write_text(f"# What this study is; written once, read on resume.\n{text}")
        os.replace(scratch, folder / SPEC_FILE)

    @classmethod
    def load(cls, folder: Path) -> StudySpec:
        """The spec of the study in `folder`; ValueError where there is none."""
        return parse(cls, presets.read_yaml(folder / SPEC_FILE))

    def differences(self, other: StudySpec) -> list[str]:
        """`key: mine, the other's` for every key in which two specs differ."""
        mine, theirs = dict(leaves(plain(self))), dict(leaves(plain(other)))
        return [
            f"{key}: {mine.get(key)!r}, there {theirs.get(key)!r}"
            for key in sorted({*mine, *theirs})
            if mine.get(key) != theirs.get(key)
        ]


def another(name: str, where: str, differences: Iterable[str]) -> str:
    """What to say of a study that is there with another spec, and the ways out."""
    listed = "\n  ".join(differences)
    return (
        f"--study {name}: {where} holds a study with another spec; give the same settings, or another name and, to "
        f"begin with what this one found, --import {name}:\n  {listed}"
    )

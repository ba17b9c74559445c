"""What a study is: its space, base, protocol and seed. Its identity follows from that, and from nothing else."""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, model_validator

from coldtune import presets
from coldtune.config import Config, digest, parse, plain
from coldtune.metrics.paired import HIGHER_IS_BETTER
from coldtune.stages.trial import leaves, parse_trial
from coldtune.studies.search.sampler import SearchConfig
from coldtune.studies.space.config import SpaceConfig
from coldtune.studies.space.distributions import set_key
from coldtune.studies.spec.pruning_checks import PruningConfig

SPEC_FILE = "spec.yaml"
SECTIONS = ("search", "pruning")
"""The sections of a space file, beside the base, that `--set` may change."""

# The judge of a dataset, where the base names none of its own: a classifier that ships, or else the paper's.
JUDGES = {"digits": "digits", "mnist": "mnist", "cifar10": "cifar10", "celeba": "inception", "afhq": "inception"}


class Objective(Config):
    """What the search improves: a metric of the trial's own sampler under the protocol, or `nfe`, what it costs."""

    metric: Literal["fid", "fid_infinity", "kid", "mind", "precision", "recall", "ssim", "rmse", "psnr", "nfe"] = "fid"
    direction: Literal["minimize", "maximize"] = "minimize"

    @model_validator(mode="after")
    def _towards_better(self) -> Objective:
        better = "maximize" if self.metric in HIGHER_IS_BETTER else "minimize"
        if self.direction != better:
            raise ValueError(
                f"direction = {self.direction!r}: {self.metric} is better the other way; allowed: {better}"
            )
        return self


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


def build_spec(
    job: str, space_file: Path, *, dataset: str | None = None, seed: int | None = None, settings: Sequence[str] = ()
) -> StudySpec:
    """The spec of a job: a space file, whose base the command line changes.

    settings: `key=value` with a dotted key of the base (`training.steps=400`), of `search` (`search.startup=8`) or of
    `pruning` (`pruning.kind=median`); the value is YAML. The file's own `rungs` are the base's. seed sets
    the search's seed and, unless set itself, the training's. ValueError naming what is wrong.
    """
    tree = presets.read_yaml(space_file)
    base_name = tree.get("base")
    base = copy.deepcopy(dict(base_name)) if isinstance(base_name, Mapping) else presets.load(str(base_name))
    sections = {name: dict(tree.pop(name, {})) for name in SECTIONS}
    if "rungs" in tree:
        base["rungs"] = {**base.get("rungs", {}), **tree.pop("rungs")}
    if dataset is not None:
        set_key(base, "data.name", dataset)
        _judge_for(base, dataset)
    base = change(base, sections, seed=seed, settings=settings)
    written = tree.pop("objective", {})
    objective, *also = [
        parse(Objective, one, "objective") for one in (written if isinstance(written, list) else [written])
    ]
    return StudySpec(
        job=job,
        space=parse(SpaceConfig, tree, space_file.name),
        base=base,
        objective=objective,
        also=tuple(also),
        search=parse(SearchConfig, sections["search"], "search"),
        pruning=parse(PruningConfig, sections["pruning"], "pruning"),
        seed=seed or 0,
    )


def change(
    base: dict[str, Any],
    sections: Mapping[str, dict[str, Any]],
    *,
    seed: int | None = None,
    settings: Sequence[str] = (),
) -> dict[str, Any]:
    """A whole base from one that is being written, as the command line changes it.

    sections: by name, those beside the base that it may change too (`search`, `pruning`), in place. seed and settings
    as in `build_spec`. ValueError naming what is wrong, or that there is no judge.
    """
    if seed is not None:
        set_key(base, "training.seed", seed)
    for setting in settings:
        key, value = _setting(setting)
        section, _, rest = key.partition(".")
        target, path = (sections[section], rest) if section in sections and rest else (base, key)
        _check_parents(target, path)
        set_key(target, path, value)
    _check_judge(base)
    return dict(plain(parse_trial(base)))


def _setting(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not re.fullmatch(r"[A-Za-z_][\w.]*", key.strip()):
        raise ValueError(f"--set {text}: must be key=value with a dotted key, for example training.steps=400")
    try:
        return key.strip(), yaml.safe_load(value)
    except yaml.YAMLError:
        raise ValueError(f"--set {text}: the value is not valid YAML") from None


def _check_parents(tree: Mapping[str, Any], key: str) -> None:
    parts = key.split(".")
    for depth, part in enumerate(parts[:-1]):
        tree = tree.get(part, {})
        if not isinstance(tree, Mapping):
            raise ValueError(f"--set {key}: {'.'.join(parts[: depth + 1])} is a value, it has no keys")


def _judge_for(base: dict[str, Any], dataset: str) -> None:
    """Another dataset, another judge: the one that ships for it (`_check_judge` speaks up where there is none)."""
    set_key(base, "protocol.extractor", JUDGES.get(dataset, ""))


def _check_judge(base: Mapping[str, Any]) -> None:
    if not base.get("protocol", {}).get("extractor"):
        raise ValueError(
            f"protocol.extractor: no judge ships for dataset {base['data']['name']!r} (there are: "
            f"{', '.join(sorted(JUDGES))}); name your own with --set protocol.extractor=module:attribute"
        )

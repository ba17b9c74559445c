"""Building a study's spec from a space file and the command line."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from coldtune import presets
from coldtune.config import parse, plain
from coldtune.dotted import set_key
from coldtune.stages.trial import parse_trial
from coldtune.studies.search.config import SearchConfig
from coldtune.studies.search.objective import Objective
from coldtune.studies.search.pruning_config import PruningConfig
from coldtune.studies.space.config import SpaceConfig
from coldtune.studies.spec.study import StudySpec

SECTIONS = ("search", "pruning")
"""The sections of a space file, beside the base, that `--set` may change."""

# The judge of a dataset, where the base names none of its own: a classifier that ships, or else the paper's.
JUDGES = {"digits": "digits", "mnist": "mnist", "cifar10": "cifar10", "celeba": "inception", "afhq": "inception"}


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

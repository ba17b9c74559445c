"""Build the specification of a study from a space file and the command line."""

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
from coldtune.studies.spec.image_size import warn_of_image_size
from coldtune.studies.spec.study import StudySpec

SECTIONS = ("search", "pruning")
"""The sections of a space file that `--set` may change, in addition to those of the base."""

JUDGES = {"digits": "digits", "mnist": "mnist", "cifar10": "cifar10", "celeba": "inception", "afhq": "inception"}
"""The feature extractor of each dataset, if the base names none: a classifier that ships, or the paper's Inception."""


def build_spec(
    job: str, space_file: Path, *, dataset: str | None = None, seed: int | None = None, settings: Sequence[str] = ()
) -> StudySpec:
    """Build the spec of a job from its space file, with the changes of the command line.

    Args:
        job: The name of the job.
        space_file: The YAML file of the space. Its section `rungs` is a part of the base.
        dataset: The dataset to use instead of the base's, with its own feature extractor.
        seed: The seed of the search, and of the training unless `settings` sets that.
        settings: Texts `key=value` with a dotted key of the base (`training.steps=400`), of `search`
            (`search.startup=8`) or of `pruning` (`pruning.kind=median`). The value is YAML.

    Raises:
        ValueError: If a key or a value is wrong. The message names it.
    """
    tree = presets.read_yaml(space_file)
    base_name = tree.get("base")
    base = copy.deepcopy(dict(base_name)) if isinstance(base_name, Mapping) else presets.load(str(base_name))
    sections = {name: dict(tree.pop(name, {})) for name in SECTIONS}
    if "rungs" in tree:
        base["rungs"] = {**base.get("rungs", {}), **tree.pop("rungs")}
    if dataset is not None:
        set_key(base, "data.name", dataset)
        set_key(base, "protocol.extractor", JUDGES.get(dataset, ""))  # `_check_judge` reports an empty name
    written_base = copy.deepcopy(base)
    base = change_base(base, sections, seed=seed, settings=settings)
    written = tree.pop("objective", {})
    objective, *also = [
        parse(Objective, item, "objective") for item in (written if isinstance(written, list) else [written])
    ]
    space = parse(SpaceConfig, tree, space_file.name)
    warn_of_image_size(written_base, base, space)
    return StudySpec(
        job=job,
        space=space,
        base=base,
        objective=objective,
        also=tuple(also),
        search=parse(SearchConfig, sections["search"], "search"),
        pruning=parse(PruningConfig, sections["pruning"], "pruning"),
        seed=seed or 0,
    )


def change_base(
    base: dict[str, Any],
    sections: Mapping[str, dict[str, Any]],
    *,
    seed: int | None = None,
    settings: Sequence[str] = (),
) -> dict[str, Any]:
    """Apply the changes of the command line to a base, and return it with every default written out.

    Args:
        base: The base as it is written. It is changed in place.
        sections: The sections beside the base that `settings` may change, by name. They are changed in place.
        seed: As in `build_spec`.
        settings: As in `build_spec`.

    Raises:
        ValueError: If a key or a value is wrong, or the base names no feature extractor.
    """
    if seed is not None:
        set_key(base, "training.seed", seed)
    for setting in settings:
        key, value = _parse_setting(setting)
        section, _, rest = key.partition(".")
        target, path = (sections[section], rest) if section in sections and rest else (base, key)
        _check_parents(target, path)
        set_key(target, path, value)
    _check_judge(base)
    return dict(plain(parse_trial(base)))


def _parse_setting(text: str) -> tuple[str, Any]:
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
            raise ValueError(f"--set {key}: {'.'.join(parts[: depth + 1])} is a value and has no keys")


def _check_judge(base: Mapping[str, Any]) -> None:
    if not base.get("protocol", {}).get("extractor"):
        raise ValueError(
            f"protocol.extractor: no judge ships for dataset {base['data']['name']!r} (there are: "
            f"{', '.join(sorted(JUDGES))}). Name your own with --set protocol.extractor=module:attribute."
        )

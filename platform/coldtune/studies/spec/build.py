"""Build the specification of a study from a space file and the command line."""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from coldtune import environment, presets
from coldtune.config import parse, plain, shorten
from coldtune.data.registry import OWN
from coldtune.diffusion.degradations.registry import degradation_config
from coldtune.diffusion.restorer import RestorerConfig, check_restorer
from coldtune.dotted import set_key
from coldtune.stages.trial import TRAINING_SEED, parse_trial
from coldtune.studies.search.config import SearchConfig
from coldtune.studies.search.objective import Objective
from coldtune.studies.search.pruning_config import PruningConfig
from coldtune.studies.space.config import SpaceConfig
from coldtune.studies.space.design import SECTIONS as DESIGN_SECTIONS
from coldtune.studies.space.design import build_design
from coldtune.studies.space.written import normalize_space
from coldtune.studies.spec.comparisons import Comparisons
from coldtune.studies.spec.image_size import warn_of_image_size
from coldtune.studies.spec.replicates import read_replicates
from coldtune.studies.spec.study import SEEDS, StudySpec
from coldtune.yaml_files import MAX_DEPTH, parse_yaml, read_yaml

SECTIONS = ("search", "pruning", "comparisons")
"""The sections of a space file that `--set` may change, in addition to those of the base."""

JUDGES = {
    "digits": "digits",
    "mnist": "mnist",
    "cifar10": "cifar10",
    "celeba": "inception",
    "afhq": "inception",
    "folder": "inception",
    "parquet": "inception",
}
"""The feature extractor of each dataset, if the base names none: a classifier that ships, or the paper's Inception."""

_LONGEST_SHOWN = 120  # characters of a setting in an error


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
    tree = read_yaml(space_file)
    allowed = [*SpaceConfig.model_fields, *DESIGN_SECTIONS, *SECTIONS, "rungs", "objective", "replicates"]
    if unknown := [name for name in tree if name not in allowed]:
        raise ValueError(f"{space_file}: {unknown[0]}: unknown section; allowed: {', '.join(allowed)}")
    if "base" not in tree:
        raise ValueError(f"{space_file}: base: required, the name of a preset or a mapping of sections, but missing")
    base = _read_base(tree["base"])
    sections = {name: _section(tree, name) for name in SECTIONS}
    if "rungs" in tree:
        rungs = _section(tree, "rungs")
        if isinstance(base.get("rungs", {}), Mapping):  # `parse_trial` refuses another kind
            base["rungs"] = {**base.get("rungs", {}), **rungs}
    if dataset is not None:
        if not isinstance(base.get("data"), Mapping | None) or not isinstance(base.get("protocol"), Mapping | None):
            parse_trial(base)  # raises the error that says so
        set_key(base, "data.name", dataset)
        set_key(base, "protocol.extractor", JUDGES.get(dataset, ""))  # `_check_judge` reports an empty name
    written_base = copy.deepcopy(base)
    base = change_base(base, sections, seed=seed, settings=settings)
    objective, *also = _read_objectives(tree)
    replicates = read_replicates(tree.pop("replicates", 1))
    design = None
    if any(name in tree for name in DESIGN_SECTIONS):
        shape = presets.image_shape(base)
        space, design, searched = build_design(tree, base, shape, space_file.name, seed or 0)
    else:
        space = searched = normalize_space(parse(SpaceConfig, tree, space_file.name), base)
    # An image size that cannot be had needs no warning.
    check_restorer(parse(RestorerConfig, base["restorer"], "restorer"), presets.image_shape(base))
    warn_of_image_size(written_base, base, searched)
    if sections["search"] and not space.vary:
        what = "arms of a design" if design else "variants"
        warnings.warn(f"search: has no effect, because all {what} are tried. Leave it out.", stacklevel=2)
    spec = StudySpec(
        job=job,
        space=space,
        base=base,
        objective=objective,
        also=tuple(also),
        search=parse(SearchConfig, sections["search"], "search"),
        pruning=parse(PruningConfig, sections["pruning"], "pruning"),
        seed=seed or 0,
        comparisons=parse(Comparisons, sections["comparisons"], "comparisons"),
        design=design,
    )
    return spec.with_replicates(replicates)


def _read_base(written: Any) -> dict[str, Any]:
    """Return the base that a space names or contains."""
    if isinstance(written, Mapping):
        return copy.deepcopy(dict(written))
    if not isinstance(written, str):
        raise ValueError(f"base = {shorten(written)}: must be the name of a preset, or a mapping of sections")
    return presets.load(written)


def _section(tree: dict[str, Any], name: str) -> dict[str, Any]:
    """Take a section out of a space. It is empty if the space has no such section."""
    written = tree.pop(name, {})
    if not isinstance(written, Mapping):
        raise ValueError(f"{name} = {shorten(written)}: must be a mapping of keys. For the defaults, leave it out.")
    return dict(written)


def _read_objectives(tree: dict[str, Any]) -> list[Objective]:
    """Take the objectives out of a space. The default is a single objective, the FID."""
    written = tree.pop("objective", {})
    listed = written if isinstance(written, list) else [written]
    if not listed:
        raise ValueError("objective = []: must name at least one metric, for example [{metric: fid}]")
    for item in listed:
        if not isinstance(item, Mapping):
            raise ValueError(f"objective = {shorten(item)}: must be a mapping, for example {{metric: fid}}")
    objectives = [parse(Objective, item, "objective") for item in listed]
    metrics = [objective.metric for objective in objectives]
    if len(set(metrics)) < len(metrics):
        raise ValueError(f"objective = {metrics}: each metric once")
    return objectives


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
        if not 0 <= seed < SEEDS:
            raise ValueError(f"--seed {seed}: allowed: 0 to {SEEDS - 1}")
        if isinstance(base.get("training", {}), Mapping):
            set_key(base, TRAINING_SEED, seed)
    for setting in settings:
        key, value = _parse_setting(setting)
        section, _, rest = key.partition(".")
        if section in sections and not rest:
            raise ValueError(f"--set {_cut(setting)}: name a key of {section}, for example {section}.KEY=...")
        target, path = (sections[section], rest) if section in sections else (base, key)
        _check_parents(target, path)
        set_key(target, path, value)
    _check_judge(base)
    return dict(plain(parse_trial(base)))


def _parse_setting(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals or not re.fullmatch(r"[A-Za-z_]\w*(\.\w+)*", key):
        raise ValueError(f"--set {_cut(text)}: must be key=value with a dotted key, for example training.steps=400")
    if key.count(".") >= MAX_DEPTH:
        raise ValueError(f"--set {_cut(text)}: the key has more than {MAX_DEPTH} levels")
    return key, parse_yaml(value, f"--set {key}")


def _cut(text: str) -> str:
    text = text if text.isprintable() else repr(text)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def _check_parents(tree: Any, key: str) -> None:
    parts = key.split(".")
    for depth, part in enumerate(parts[:-1]):
        tree = tree.get(part, {})
        if tree is None:  # `prior: null` is a section without keys
            return
        if not isinstance(tree, Mapping):
            raise ValueError(f"--set {key}: {'.'.join(parts[: depth + 1])} is a value and has no keys")


def _check_judge(base: Mapping[str, Any]) -> None:
    """Raise ValueError if the base names no feature extractor. Whatever else is wrong in it is reported first."""
    protocol = base.get("protocol", {})
    if not isinstance(protocol, Mapping) or protocol.get("extractor") not in (None, ""):
        return
    trial = parse_trial({**base, "protocol": {**protocol, "extractor": JUDGES["digits"]}})
    degradation_config(trial.degradation)
    dataset = trial.data.name
    if dataset in OWN:
        raise ValueError(
            f"protocol.extractor: required, but missing. `{environment.runner()}coldtune data train-judge PATH` makes "
            f"a judge of the images of {dataset!r}, and `coldtune data judges` lists those of a home."
        )
    if dataset in JUDGES:
        raise ValueError(f"protocol.extractor: required, but missing. The judge of {dataset} is {JUDGES[dataset]!r}.")
    raise ValueError(
        f"protocol.extractor: no judge ships for dataset {dataset!r} (there are: {', '.join(sorted(JUDGES))}). Name "
        "your own with --set protocol.extractor=module:attribute."
    )

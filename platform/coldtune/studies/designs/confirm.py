"""The confirmation of a finished search: its winner, the next settings and its base, trained anew and judged on test.

The search fixes the winner by its own values. The confirmation trains with seeds that no training of the search has
used, and judges on images that have chosen nothing. It is an ordinary study, whose variants are these settings.
"""

from __future__ import annotations

from collections.abc import Iterator

from coldtune.config import parse, plain
from coldtune.dotted import get_key
from coldtune.environment import coldtune_command
from coldtune.stages.trial import TRAINING_SEED, RungConfig, TrialConfig, parse_trial
from coldtune.studies.space.config import SpaceConfig
from coldtune.studies.space.design import differences, meaning
from coldtune.studies.spec.confirmation import JOB, Confirmation
from coldtune.studies.spec.folder import StudyFolder, studies
from coldtune.studies.spec.replicates import MOST_REPLICATES
from coldtune.studies.spec.study import StudySpec
from coldtune.studies.storage.settings import Setting
from coldtune.studies.trials.judging import have_same_images
from coldtune.studies.trials.reading import StudyReader

NEXT = 2
"""How many settings are confirmed beside the winner and the base."""

MOST_CONFIRMED = NEXT + 2
"""How many settings are confirmed at most: the winner, the next ones and the base."""

_BASE = "base"
_LAST_SEED = 2**63 - 1


def build_confirmation(reader: StudyReader, replicates: int) -> StudySpec | None:
    """Return the spec of the study that confirms a finished search. None if no setting of the search has a value.

    Args:
        replicates: The trainings of each setting.
    """
    spec, search = reader.spec, reader.study.study_name
    seed, space = first_seed(reader), reader.space
    base = dict(plain(_as_confirmed(parse_trial(spec.base), seed)))
    ranked = reader.ranked_settings()
    if not ranked:
        return None
    what = "setting" if reader.replicated else "trial"
    arms = {_BASE: _as_confirmed(space.resolve(space.first), seed)}
    numbers: dict[str, int | None] = {_BASE: None}
    known = {meaning(arms[_BASE]): _BASE}
    winner = ""
    chosen: list[Setting] = []
    for setting in ranked:  # several settings may mean the same trial, or that of the base
        full = len(arms) == 1 + NEXT + (winner != _BASE)
        if full and numbers[_BASE] is not None:
            break
        if not full and any(have_same_images(setting, other) for other in chosen):
            continue  # its new trainings would give the same images again
        config = _as_confirmed(space.resolve(setting.point), seed)
        role = f"{what} {setting.number}" if winner else f"winner ({what} {setting.number})"
        name = known.setdefault(meaning(config), role)
        winner = winner or name
        if name == _BASE and numbers[_BASE] is None:
            numbers[_BASE] = setting.number
            chosen.append(setting)
        elif name == role and not full:
            arms[name], numbers[name] = config, setting.number
            chosen.append(setting)
    return StudySpec(
        job=JOB.format(search=search),
        space=parse(
            SpaceConfig,
            {
                "base": spec.space.base,
                "variants": {name: differences(base, plain(config)) for name, config in arms.items()},
            },
            "confirmation",
        ),
        base=base,
        objective=spec.objective,
        seed=spec.seed,
        threads=spec.threads or 1,
        replicates=replicates,
        comparisons=spec.comparisons.model_copy(update={"family": ("base",)}),
        confirmation=Confirmation(study=search, what=what, winner=winner, base=_BASE, numbers=numbers),
    )


def first_seed(reader: StudyReader) -> int:
    """Return the training seed with which a confirmation begins.

    Neither the search nor more replicates of it use this seed or the seeds after it.

    Raises:
        ValueError: If the search uses seeds so large and so small that no seeds are left.
    """
    vary = reader.spec.space.vary.get(TRAINING_SEED)
    used = [int(get_key(tree, TRAINING_SEED) or 0) for tree in (reader.space.base, *reader.space.variant_trees())]
    used += [] if vary is None else [int(end) for end in vary.ends()]
    first = max(used) + MOST_REPLICATES
    if first + MOST_REPLICATES <= _LAST_SEED:
        return first
    if (first := min(used) - MOST_REPLICATES) < 0:
        raise ValueError(f"training.seed: {min(used)} to {max(used)} leave no seeds for --confirm")
    return first


def describe_earlier(folder: StudyFolder, spec: StudySpec) -> Iterator[str]:
    """Yield a sentence for each earlier confirmation of a search that had chosen other settings.

    Args:
        folder: The folder of the search.
        spec: The spec of the present confirmation.
    """
    for other in studies(folder.home):
        if not other.name.startswith(JOB.format(search=folder.name)) or other.name == spec.name:
            continue
        try:
            record = other.spec().confirmation
        except ValueError:  # it cannot be read, so nobody knows what it has confirmed
            continue
        if record is not None and record.study == folder.name:
            yield (
                f"{other.name} is another confirmation of this search, of {describe_chosen(record)}. Its results stay: "
                f"{coldtune_command('study show', other.home, other.name)}"
            )


def describe_chosen(record: Confirmation) -> str:
    """Return the settings that a search has chosen, as a text for people."""
    names = [name for name in record.numbers if name not in (record.winner, record.base)]
    number, others = record.numbers[record.winner], f", then {', '.join(names)}" if names else ""
    if record.winner == record.base:
        return f"its base ({record.what} {number}), which won{others}"
    return f"its winner ({record.what} {number}){others}, beside its base"


def _as_confirmed(trial: TrialConfig, seed: int) -> TrialConfig:
    """Return a trial of a search with another training seed, on the test split and without rungs."""
    training = trial.training.model_copy(update={"seed": seed})
    protocol = trial.protocol.without_further_draws().model_copy(update={"split": "test"})
    return trial.model_copy(update={"training": training, "protocol": protocol, "rungs": RungConfig()})

"""docs/search-spaces.md: every space on the page builds, and has the properties that the page claims."""

from __future__ import annotations

import itertools
import random
import re
from pathlib import Path

import pytest
import yaml

from coldtune.diffusion import leftover_of, nfe
from coldtune.studies.search.sampler import listed_points
from coldtune.studies.space.space import Space
from coldtune.studies.space.validate import build_space
from coldtune.studies.spec.build import build_spec
from coldtune.studies.spec.pruning_checks import check_pruning
from coldtune.studies.spec.study import StudySpec

SHAPE = (1, 16, 16)
HEADS = (
    "Base, ranges, choices", "Base, ranges, choices", "Conditions: `when`", "Variants", "Replicates", "Derived values",
    "Constraints", "Points to try first", "Generation", "Rungs and pruning", "A worked example",
    "Designs", "Designs", "Choices after the training", "Choices after the training",
)  # fmt: skip


def blocks(root: Path) -> list[tuple[str, str]]:
    """Return each YAML block of the page with its heading."""
    found, head = [], ""
    for part in re.split(r"^## ", (root / "docs/search-spaces.md").read_text(), flags=re.MULTILINE)[1:]:
        head = part.splitlines()[0]
        found += [(head, block) for block in re.findall(r"```yaml\n(.*?)```", part, re.DOTALL)]
    return found


@pytest.fixture(scope="module")
def spaces(root: Path, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[StudySpec, Space]]:
    """Build every space of the page, as a job builds it."""
    made = []
    for _, text in blocks(root):
        file = tmp_path_factory.mktemp("page") / "space.yaml"
        file.write_text(text)
        spec = build_spec("page", file)
        made.append((spec, build_space(spec.space, spec.base, SHAPE)))
    return made


def points(space: Space, count: int = 60) -> list[dict]:
    rng = random.Random(0)
    drawn = (space.sample(rng) for _ in range(100 * count))
    return list(itertools.islice(filter(space.feasible, drawn), count))


def test_page_has_a_space_under_each_heading(root: Path) -> None:
    assert tuple(head for head, _ in blocks(root)) == HEADS
    for _, text in blocks(root):
        assert set(yaml.safe_load(text)) & {"vary", "variants", "design"}


def test_page_spaces_have_points_that_resolve(spaces: list[tuple[StudySpec, Space]]) -> None:
    for spec, space in spaces:
        assert space.feasible(space.first)
        listed = listed_points(space, spec.search, spec.seed)
        for point in points(space, 10) if listed is None else listed:
            space.resolve(point)


def test_sampler_grid_shares_one_restorer(spaces: list[tuple[StudySpec, Space]]) -> None:
    spec, space = spaces[1]
    assert [objective.metric for objective in spec.objectives] == ["fid", "nfe"]
    trials = [space.resolve(point) for point in space.grid()]
    assert len(trials) == 12
    assert len({(trial.model_copy(update={"sampler": trials[0].sampler})).model_dump_json() for trial in trials}) == 1


def test_nested_conditions_leave_out_keys_without_effect(spaces: list[tuple[StudySpec, Space]]) -> None:
    _, space = spaces[2]
    shapes = {(point["variant"], frozenset(point) - {"variant"}) for point in points(space, 120)}
    assert shapes == {
        ("blur", frozenset({"schedule"})),
        ("blur", frozenset({"schedule", "rate"})),
        ("noise", frozenset({"draw"})),
        ("noise", frozenset({"draw", "eta"})),
    }
    for point in points(space, 120):
        assert ("rate" in point) == (point.get("schedule") in ("linear", "exponential"))
        assert ("eta" in point) == (point.get("draw") == "estimated")


def test_variants_are_asked_in_the_written_order(spaces: list[tuple[StudySpec, Space]]) -> None:
    spec, space = spaces[3]
    asked = [space.resolve(point) for point in listed_points(space, spec.search, spec.seed) or ()]
    assert [trial.degradation["kind"] for trial in asked] == ["blur", "noise", "blur"]
    assert [trial.restorer.size for trial in asked] == ["micro", "micro", "tiny"]


def test_derived_values_keep_the_leftover(spaces: list[tuple[StudySpec, Space]]) -> None:
    for i in (5, 10):
        spec, space = spaces[i]
        held = leftover_of(spec.base["degradation"], SHAPE)
        for point in points(space, 20):
            assert leftover_of(space.resolve(point).degradation, SHAPE) == pytest.approx(held, rel=1e-3)
        assert space.feasible_share() < 1, "the page says that a part of the space cannot be asked"


def test_constraint_on_nfe_is_never_exceeded(spaces: list[tuple[StudySpec, Space]]) -> None:
    for i, most in ((6, 20), (10, 30)):
        _, space = spaces[i]
        costs = [nfe(trial.sampler, trial.degradation["steps"]) for trial in map(space.resolve, points(space))]
        assert max(costs) <= most
        assert len(set(costs)) > 2


def test_first_points_follow_the_base(spaces: list[tuple[StudySpec, Space]]) -> None:
    assert [(point["T"], point["sampler"]) for point in spaces[7][1].enqueued] == [
        (20, "tacos"), (40, "tacos"), (10, "naive")
    ]  # fmt: skip
    assert [point["sampler"] for point in spaces[10][1].enqueued] == ["tacos", "naive", "direct"]
    assert "num_steps" not in spaces[10][1].enqueued[2], "num_steps has no effect on direct restoration"


def test_rungs_of_the_halving_all_decide(spaces: list[tuple[StudySpec, Space]]) -> None:
    spec, _ = spaces[9]
    check_pruning(spec)
    assert spec.base["rungs"]["steps"] == spec.pruning.rule().deciding_rungs(spec.base["rungs"]["steps"]) == [75, 150]


def test_generation_space_leaves_at_most_a_thousandth(spaces: list[tuple[StudySpec, Space]]) -> None:
    _, space = spaces[8]
    left = [leftover_of(space.resolve(point).degradation, SHAPE) for point in points(space)]
    assert max(left) <= 1e-3
    rng = random.Random(0)
    assert not all(space.feasible(space.sample(rng)) for _ in range(60)), (
        "without the constraint some points would leave more"
    )


def test_designs_have_the_arms_that_the_page_claims(spaces: list[tuple[StudySpec, Space]]) -> None:
    (factorial, _), (fractional, space) = spaces[11:13]
    assert factorial.design is not None
    assert len(factorial.design.arms) + len(factorial.design.skipped) == 5
    assert fractional.design is not None
    assert len(fractional.design.arms) == 32 / 4
    assert all(space.resolve({"variant": arm}) for arm in fractional.design.arms)

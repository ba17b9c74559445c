"""Where a sampler with fewer than T steps evaluates the network."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coldtune.config import digest, identity, parse
from coldtune.diffusion import SamplerConfig, build_degradation, nfe, sample

SCHEDULES = st.sampled_from(["uniform", "cosine", "rho"])
BLUR = {
    "kind": "blur",
    "steps": 12,
    "kernel_size": 3,
    "padding": "circular",
    "sigma": {"schedule": "constant", "start": 0.6},
}


@given(st.integers(1, 400), st.data(), SCHEDULES, st.floats(1, 20))
@settings(max_examples=300, deadline=None)
def test_schedule_falls_to_0_in_num_steps(T: int, data: st.DataObject, schedule: Any, rho: float) -> None:
    count = data.draw(st.integers(1, T))
    extra = {"rho": rho} if schedule == "rho" else {}
    visited = SamplerConfig(num_steps=count, schedule=schedule, **extra).severities(T)
    assert (visited[0], visited[-1], len(visited)) == (T, 0, count + 1)
    assert all(later < earlier for earlier, later in pairwise(visited))
    if count == T:
        assert visited == list(range(T, -1, -1)), "every step, whatever the schedule"


def test_schedule_rho_is_equation_5_of_karras() -> None:
    """sigma_i = (smax^(1/rho) + i / (N - 1) (smin^(1/rho) - smax^(1/rho)))^rho, with smax = T and smin = 1."""
    root = np.linspace(1000 ** (1 / 3), 1, 8)
    assert SamplerConfig(num_steps=8, schedule="rho", rho=3).severities(1000) == [*np.rint(root**3).astype(int), 0]


def test_schedule_rho_1_is_linear_down_to_1() -> None:
    assert SamplerConfig(num_steps=5, schedule="rho", rho=1).severities(41) == [41, 31, 21, 11, 1, 0]


def test_schedule_cosine_is_quarter_of_a_cosine() -> None:
    """cos(0), cos(30), cos(60) and cos(90) degrees."""
    assert SamplerConfig(num_steps=3, schedule="cosine").severities(1000) == [1000, 866, 500, 0]


@given(st.integers(60, 400), st.integers(2, 12))
@settings(max_examples=50, deadline=None)
def test_schedules_step_small_where_they_say(T: int, count: int) -> None:
    def strides(schedule: str) -> list[int]:
        visited = parse(SamplerConfig, {"num_steps": count, "schedule": schedule}).severities(T)
        return [earlier - later for earlier, later in pairwise(visited)]

    assert strides("cosine")[0] <= min(strides("uniform")) <= strides("rho")[0]
    assert strides("rho")[-1] == 1


def test_schedule_list_is_what_the_network_sees() -> None:
    d = build_degradation(BLUR, (1, 8, 8))
    x_T = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    seen: list[int] = []

    def restorer(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        seen.append(int(t[0]))
        return x

    sample(restorer, d, x_T, {"schedule": [12, 7, 2]})
    assert seen == [12, 7, 2]
    assert nfe({"schedule": [12, 7, 2]}, 12) == 3


@pytest.mark.parametrize(
    "sampler", [{"num_steps": 4, "schedule": "rho"}, {"num_steps": 4, "schedule": "cosine"}, {"schedule": [12, 5, 1]}]
)
@pytest.mark.parametrize("algorithm", ["tacos", "naive"])
def test_schedule_perfect_restorer_is_exact(sampler: dict[str, Any], algorithm: str) -> None:
    d = build_degradation(BLUR, (1, 8, 8))
    x0 = torch.rand(2, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    out = sample(lambda x, t: x0, d, d(x0, 12), {"algorithm": algorithm, **sampler})
    torch.testing.assert_close(out, x0, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("sampler", "message"),
    [
        ({"schedule": "rho"}, r"schedule = 'rho': needs num_steps"),
        (
            {"schedule": "linear", "num_steps": 3},
            r"sampler.schedule = 'linear': input should be 'uniform', 'cosine' or 'rho' or a list",
        ),
        ({"schedule": [12, 5, 5]}, r"schedule = \[12, 5, 5\]: must fall from T downwards, each severity once"),
        ({"schedule": [12, 5, 0]}, r"sampler.schedule = 0|greater than or equal to 1"),
        ({"schedule": []}, r"sampler.schedule = \[\]"),
        ({"schedule": [12, 5], "num_steps": 2}, r"num_steps = 2: must be left out, because the schedule lists"),
        ({"schedule": [10, 5]}, r"sampler.schedule = \[10, 5\]: must begin with T = 12"),
        ({"schedule": "rho", "num_steps": 3, "rho": 0.5}, r"sampler.rho = 0.5: input should be greater than or equal"),
        ({"num_steps": 3, "rho": 3}, r"rho = 3.0: must be left out, unless schedule = 'rho'"),
        ({"algorithm": "direct", "schedule": "cosine"}, r"schedule = 'cosine': must be left out, as direct"),
    ],
)
def test_schedule_wrong_settings_name_key(sampler: dict[str, Any], message: str) -> None:
    d = build_degradation(BLUR, (1, 8, 8))
    with pytest.raises(ValueError, match=message):
        sample(lambda x, t: x, d, torch.zeros(1, 1, 8, 8), sampler)


def test_schedule_uniform_is_no_part_of_the_identity() -> None:
    assert not {"schedule", "rho"} & set(identity(SamplerConfig(num_steps=3)))
    assert digest(identity(SamplerConfig(num_steps=3, schedule="rho"))) != digest(identity(SamplerConfig(num_steps=3)))

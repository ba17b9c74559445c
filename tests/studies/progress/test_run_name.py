"""The names of trials' runs in MLflow, which say what varies."""

from __future__ import annotations

from typing import Any

import pytest

from coldtune.studies.progress.text import run_name


@pytest.mark.parametrize(
    ("point", "name"),
    [
        ({"T": 40, "sampler": "tacos"}, "3: T 40, tacos"),
        ({"rate": 0.020586, "lr": 1e-5}, "3: rate 0.0206, lr 1e-05"),
        ({"num_steps": None, "flip": True}, "3: num_steps null, flip true"),
        ({"variant": "mask, beta step 0.1"}, "3: mask, beta step 0.1"),
        ({}, "trial 3"),
    ],
)
def test_run_name_says_what_varies(point: dict[str, Any], name: str) -> None:
    assert run_name("3", point) == name


def test_run_name_of_many_keys_counts_the_rest() -> None:
    name = run_name("2.1", {f"a_long_parameter_{i}": i for i in range(20)})
    assert name.startswith("2.1: a_long_parameter_0 0, a_long_parameter_1 1, ")
    assert name.endswith(" more")
    assert len(name) <= 100
    assert int(name.split()[-2]) + name.count("a_long_parameter_") == 20

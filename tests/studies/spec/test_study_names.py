"""A finished study is found by its name, which hashes its spec. So the names of spaces that were valid never change."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from coldtune.studies.designs.paper_table import build_table_study
from coldtune.studies.spec.build import build_spec

# The names under which studies of these jobs and spaces lie in homes.
SHIPPED = {
    "sweep_blur/blur.yaml": "sweep_blur-ed71c4",
    "sweep_blur/blur-generation.yaml": "sweep_blur-f0fa76",
    "sweep_degradations/degradations.yaml": "sweep_degradations-0c5f59",
    "sweep_mask/mask.yaml": "sweep_mask-6d115b",
    "sweep_noise/noise.yaml": "sweep_noise-de7b96",
    "sweep_samplers/samplers.yaml": "sweep_samplers-9a1963",
    "sweep_training/training.yaml": "sweep_training-2886fc",
}
# Their names before the presets named another reference. Whoever asks for the paper's reference finds those studies.
PAPER = "protocol.reference=same"
FORMER = {
    "sweep_blur/blur.yaml": "sweep_blur-023e66",
    "sweep_samplers/samplers.yaml": "sweep_samplers-67ff73",
    "sweep_training/training.yaml": "sweep_training-9bb39c",
}
TABLES = {("A.7", "digits"): "paper_table_A.7_digits_quick-101833"}
SPACES = {
    "grid of floats": (
        "base: digits-quick\nvary: {degradation.sigma.rate: {low: 0.005, high: 0.08, step: 0.015}}\n"
        "search: {algorithm: grid}\n",
        "",
    ),
    "integers as floats": ("base: digits-quick\nvary: {degradation.steps: {choices: [20.0, 30.0]}}\n", ""),
    "zero and one as booleans": ("base: digits-quick\nvary: {data.flip: {choices: [0, 1]}}\n", ""),
    "integers for a float": ("base: digits-quick\nvary: {training.clip_norm: {choices: [null, 1, 2.5]}}\n", ""),
    "conditions and variants": (
        "base: digits-quick\nvariants: {blur: {}, noise: {degradation: {kind: noise, steps: 20}}}\n"
        "vary:\n  degradation.steps: {low: 10, high: 40, step: 10}\n"
        "  sampler.draw: {choices: [fixed, estimated], when: {variant: noise}}\n"
        "  sampler.eta: {low: 0, high: 1.0, when: {sampler.draw: estimated}}\nfirst: [{variant: noise}]\n",
        "",
    ),
    "base without sections": (
        "base:\n  degradation: {kind: blur, steps: 20, kernel_size: 7, padding: circular,\n"
        "    sigma: {schedule: exponential, start: 1e-1, rate: 0.01}}\n  protocol: {extractor: digits}\n"
        "variants: {a: {}, b: {training.lr: 1e-2}}\n",
        "",
    ),
    "text of a setting": (
        "base: digits-quick\nvary: {degradation.steps: {low: 10, high: 40}}\n",
        "degradation.sigma.rate=1e-2 training.lr=1e-3 training.steps=4_00 rungs.steps=[50,100] search.startup=8",
    ),
    "aliases and merge keys": (
        "base: digits-quick\nvariants:\n  a: &a {training.lr: 0.01}\n  b: {<<: *a, restorer.size: tiny}\n",
        "",
    ),
}  # fmt: skip
NAMES = {
    "grid of floats": "job-e0a665",
    "integers as floats": "job-712f60",
    "zero and one as booleans": "job-3c3b2a",
    "integers for a float": "job-86ddb0",
    "conditions and variants": "job-a2fbed",
    "base without sections": "job-057640",
    "text of a setting": "job-b720bc",
    "aliases and merge keys": "job-09ff35",
}


def test_names_of_shipped_studies_stay(root: Path) -> None:
    named = {}
    for job in sorted((root / "jobs").glob("sweep_*.py")):
        for space in re.findall(r"\"([\w-]+\.yaml)\"", job.read_text()):
            named[f"{job.stem}/{space}"] = build_spec(job.stem, root / "search_spaces" / space).name
    assert named == SHIPPED
    assert {key: build_table_study(*key, "quick").name for key in TABLES} == TABLES


def test_names_of_shipped_spaces_with_the_papers_reference_are_the_former_names(root: Path) -> None:
    named = {}
    for key in FORMER:
        job, file = key.split("/")
        named[key] = build_spec(job, root / "search_spaces" / file, settings=[PAPER]).name
    assert named == FORMER


@pytest.mark.parametrize("title", SPACES)
def test_name_of_a_valid_space_stays(title: str, tmp_path: Path) -> None:
    text, settings = SPACES[title]
    (tmp_path / "space.yaml").write_text(text)
    given = [*settings.split(), PAPER]
    assert build_spec("job", tmp_path / "space.yaml", settings=given).name == NAMES[title]

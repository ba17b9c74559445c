"""Promises of the repository itself: its documents say what the code does, its data builds, nothing stray comes in."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

import coldtune
from coldtune import cli, presets
from coldtune.cli import paper_table as paper_job
from coldtune.cli.job import parser
from coldtune.diffusion.degradations import DEGRADATIONS
from coldtune.metrics import build_extractor
from coldtune.stages.trial import TrialConfig, short_name
from coldtune.studies.space.validate import build_space
from coldtune.studies.spec.build import build_spec

ROOT = Path(__file__).parents[1]
README, CONTRIBUTING = ROOT / "README.md", ROOT / "CONTRIBUTING.md"
SPACES = sorted((ROOT / "search_spaces").rglob("*.yaml"))
JOBS = sorted((ROOT / "jobs").glob("*.py"))
LARGEST = 2**20
REGISTRY = Path("platform/coldtune/diffusion/degradations/registry.py")


def examples(document: Path) -> dict[str, str]:
    """The code blocks of a document that have a name, by it: `<!-- example: NAME -->` and a fence below."""
    found = re.findall(r"^<!-- example: (.+?) -->\n```\w+\n(.*?)^```$", document.read_text(), re.MULTILINE | re.DOTALL)
    return dict(found)


def commands(document: Path, start: str) -> list[list[str]]:
    """The words after `start` of the command lines of a document's shell blocks that begin with it."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", document.read_text(), re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith(start)]
    return [shlex.split(line.removeprefix(start), comments=True) for line in lines]


def run(*words: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(words, cwd=cwd, env=env, capture_output=True, text=True, check=False)


# --- what is in the repository


def tracked() -> list[Path]:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [path for name in listed.split("\0") if name and (path := ROOT / name).exists()]


def test_no_file_is_large():
    files = tracked()
    assert README in files
    assert [str(path) for path in files if path.stat().st_size > LARGEST] == []


def test_sources_never_switch_safe_loading_off():
    """PyTorch and NumPy load no code by default. ruff finds the loaders that always can (S301, S302, S506, TID251)."""
    switches = re.compile(r"weights_only\s*=\s*False|allow_pickle\s*=\s*True")
    sources = [*(ROOT / "platform" / "coldtune").rglob("*.py"), *JOBS]
    assert len(sources) > 50
    assert [str(path) for path in sources if switches.search(path.read_text())] == []


def test_one_version():
    version = coldtune.__version__
    assert f'\nversion = "{version}"\n' in (ROOT / "pyproject.toml").read_text()
    assert f"\n## [{version}] - " in (ROOT / "CHANGELOG.md").read_text()


def test_hooks_are_valid_and_download_nothing():
    config = ROOT / ".pre-commit-config.yaml"
    done = run(sys.executable, "-m", "pre_commit", "validate-config", str(config), cwd=ROOT)
    assert done.returncode == 0, done.stdout
    assert set(re.findall(r"repo: (\S+)", config.read_text())) == {"local"}


# --- documents


@pytest.mark.parametrize("document", sorted(ROOT.glob("*.md")) + sorted((ROOT / "dashboards").glob("*.md")), ids=str)
def test_links_lead_somewhere(document):
    links = re.findall(r"\]\(([^)\s]+)\)", document.read_text())
    targets = [link.partition("#")[0] for link in links if "://" not in link]
    assert [target for target in targets if target and not (document.parent / target).exists()] == []


def test_readme_lists_the_flags_of_every_job():
    rows = re.findall(r"^\| `(--[\w-]+)([^`]*)` \|", README.read_text(), re.MULTILINE)
    shown = {flag: value.strip() for flag, value in rows}
    actions = parser("", trials=8)._actions
    flags = {
        next(name for name in action.option_strings if name.startswith("--")): (
            f"{action.metavar or ''}{' ...' if action.nargs == '+' else ''}"
        )
        for action in actions
    }
    assert shown == flags


def parser_of(job: str) -> argparse.ArgumentParser:
    return paper_job.parser("") if job == "paper_table.py" else parser("", trials=8)


def test_commands_of_the_readme_are_understood():
    of_jobs = commands(README, "uv run jobs/") + [
        words[words.index("python") + 1 :] for words in commands(README, "uv run ray job submit")
    ]
    assert len(of_jobs) > 5
    for script, *arguments in of_jobs:
        assert ROOT / "jobs" / Path(script).name in JOBS
        parser_of(Path(script).name).parse_args(arguments)
    of_cli = commands(README, "uv run coldtune")
    assert len(of_cli) > 3
    for arguments in of_cli:
        cli._parser().parse_args(arguments)


def test_the_readmes_example_restores_images(tmp_path):
    (tmp_path / "example.py").write_text(examples(README)["library"])
    done = run(sys.executable, "example.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rmse = {name: float(value) for name, _, value in (line.split() for line in done.stdout.splitlines())}
    assert max(rmse["direct"], rmse["tacos"]) < rmse["degraded"]


@pytest.fixture(scope="module")
def with_pixelate(tmp_path_factory) -> Path:
    """A copy of the source in which somebody did what CONTRIBUTING.md says."""
    copy = tmp_path_factory.mktemp("contribution")
    shutil.copytree(ROOT / "platform", copy / "platform", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", copy)
    blocks = examples(CONTRIBUTING)
    for name, text in blocks.items():
        if "/" in name:
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_text(text)
    registry = (copy / REGISTRY).read_text()
    first = registry.index("from coldtune.diffusion.degradations")
    registry = registry[:first] + blocks["registry import"] + registry[first:]
    end = registry.index("}", registry.index("DEGRADATIONS: dict"))
    (copy / REGISTRY).write_text(registry[:end] + blocks["registry entry"] + registry[end:])
    return copy


def test_the_contributed_degradation_passes_its_tests(with_pixelate):
    done = run(
        sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests", cwd=with_pixelate,
        PYTHONPATH=str(with_pixelate / "platform"),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) > 20


def test_the_contributed_degradation_can_be_searched(with_pixelate):
    script = (
        "from pathlib import Path; from coldtune.studies.spec.build import build_spec; "
        "from coldtune.studies.space.validate import build_space; "
        "spec = build_spec('sweep', Path('search_spaces/pixelate.yaml')); "
        "print(build_space(spec.space, spec.base, (1, 16, 16)).feasible_share())"
    )
    done = run(sys.executable, "-c", script, cwd=with_pixelate, PYTHONPATH=str(with_pixelate / "platform"))
    assert (done.stdout.strip(), done.stderr) == ("1.0", "")


def test_the_contributed_files_are_as_the_linter_wants_them(with_pixelate):
    files = [name for name in examples(CONTRIBUTING) if name.endswith(".py")]
    assert len(files) == 2
    for verb in (["check"], ["format", "--check"]):
        done = run(sys.executable, "-m", "ruff", *verb, *files, cwd=with_pixelate)
        assert done.returncode == 0, done.stdout


# --- search spaces, jobs


@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.stem)
def test_a_space_builds(path):
    spec = build_spec(path.stem, path)
    space = build_space(spec.space, spec.base, presets.image_shape(spec.base))
    assert space.feasible(space.first)
    build_extractor(spec.base["protocol"]["extractor"])


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.stem)
def test_a_job_explains_itself(path, tmp_path):
    done = run(sys.executable, str(path), "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"uv run jobs/{path.name}" in done.stdout
    assert "--home DIR" in done.stdout
    asks = "--table N" if path.stem == "paper_table" else "--trials N"
    assert asks in done.stdout


def keys(model: type[BaseModel], prefix: str) -> Iterator[str]:
    """Every dotted key of a configuration."""
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from keys(inner, f"{prefix}{name}.")
        elif (prefix, name) != ("", "degradation"):
            yield prefix + name


@pytest.mark.parametrize("kind", sorted(DEGRADATIONS))
def test_no_two_keys_of_a_trial_have_one_short_name(kind):
    paths = [*keys(TrialConfig, ""), *keys(DEGRADATIONS[kind].config_type, "degradation.")]
    assert {"training.lr", "degradation.steps"} <= set(paths)
    names = Counter(short_name(path) for path in paths)
    assert [name for name, count in names.items() if count > 1] == []

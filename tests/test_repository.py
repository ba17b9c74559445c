"""Promises of the repository itself: its documents say what the code does, its data builds, nothing stray comes in."""

from __future__ import annotations

import argparse
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
from pydantic import BaseModel

import coldtune
from coldtune import cli, presets
from coldtune.cli import paper_table as paper_job
from coldtune.cli.job import parser
from coldtune.diffusion.degradations import DEGRADATIONS
from coldtune.durations import parse_duration
from coldtune.metrics import build_extractor
from coldtune.stages.trial import TrialConfig, short_name
from coldtune.studies.preflight.options import Limits, RunOptions
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


GUIDES = sorted((ROOT / "docs").rglob("*.md"))
DOCUMENTS = [
    *GUIDES,
    *sorted(path for folder in (".", "benchmarks", "dashboards") for path in ROOT.glob(f"{folder}/*.md")),
]
STUDIES = ROOT / "docs" / "studies.md"


def anchors(document: Path) -> set[str]:
    """Return the names by which GitHub links to the headings of a document."""
    text = re.sub(r"^```.*?^```", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_document_links_lead_to_a_file_and_a_heading(document):
    for link in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = document.parent / name if name else document
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: str(path.relative_to(ROOT)))
def test_guide_begins_with_its_readers_and_its_use(guide):
    title, empty, readers, use = guide.read_text().splitlines()[:4]
    assert title.startswith("# ")
    assert empty == ""
    assert readers.startswith("For everyone who ")
    assert use.startswith("Afterwards you ")


def test_readme_has_at_most_250_lines():
    assert len(README.read_text().splitlines()) <= 250


@pytest.mark.parametrize("document", [CONTRIBUTING, ROOT / "docs" / "architecture.md"], ids=lambda path: path.stem)
def test_document_names_source_files_that_exist(document):
    source = ROOT / "platform" / "coldtune"
    names = re.findall(r"`([\w/]+/[\w]+\.py)`", document.read_text())
    roots = (ROOT, source, source / "studies")
    missing = [name for name in names if not any((root / name).exists() for root in roots)]
    assert set(missing) <= {"jobs/sweep_pixelate.py"}, "the recipe's own job is not in the repository"


def test_architecture_page_names_classes_that_exist():
    text = (ROOT / "docs" / "architecture.md").read_text()
    source = "".join(path.read_text() for path in (ROOT / "platform" / "coldtune").rglob("*.py"))
    names = set(re.findall(r"`([A-Z][a-z]+[A-Z]\w+)", text))
    assert len(names) > 10
    assert {name for name in names if f"class {name}" not in source} <= {"SystemExit"}


def option_rows() -> dict[str, tuple[str, str]]:
    """Return (value, default) of every flag in the table of options."""
    rows = re.findall(r"^\| `(--[\w-]+)([^`]*)` \| ([^|]*)\|", STUDIES.read_text(), re.MULTILINE)
    return {flag: (value.strip(), default.strip()) for flag, value, default in rows}


def test_table_of_options_has_every_flag_of_a_job():
    actions = parser("", trials=8)._actions
    flags = {
        next(name for name in action.option_strings if name.startswith("--")): (
            f"{action.metavar or ''}{' ...' if action.nargs == '+' else ''}"
        )
        for action in actions
    }
    assert {flag: value for flag, (value, _) in option_rows().items()} == flags


def test_table_of_options_has_the_default_of_every_number():
    rows, compared = option_rows(), 0
    for option in [*fields(RunOptions), *fields(Limits)]:
        flag, default = option.metadata.get("flag"), option.default
        if flag is not None and isinstance(default, int | float) and not isinstance(default, bool):
            shown = rows[flag.name][1]
            assert (parse_duration(flag.name, shown) if shown[-1:] == "m" else float(shown)) == default
            compared += 1
    assert compared >= 5


def parser_of(job: str) -> argparse.ArgumentParser:
    return paper_job.parser("") if job == "paper_table.py" else parser("", trials=8)


def test_commands_of_jobs_in_the_documents_are_parsed():
    of_jobs = [words for document in (README, *GUIDES) for words in commands(document, "uv run jobs/")]
    for document in (README, *GUIDES):
        submitted = commands(document, "uv run ray job submit")
        of_jobs += [words[words.index("python") + 1 :] for words in submitted]
    assert len(of_jobs) > 15
    for script, *arguments in of_jobs:
        assert ROOT / "jobs" / Path(script).name in JOBS
        parser_of(Path(script).name).parse_args(arguments)


def test_commands_of_coldtune_in_the_documents_are_parsed():
    of_cli = [words for document in (README, *GUIDES) for words in commands(document, "uv run coldtune")]
    assert len(of_cli) > 15
    for arguments in of_cli:
        cli._parser().parse_args(arguments)


def test_readme_example_space_builds(tmp_path):
    (block,) = re.findall(r"^```yaml\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)
    (tmp_path / "space.yaml").write_text(block)
    spec = build_spec("example", tmp_path / "space.yaml")
    assert build_space(spec.space, spec.base, presets.image_shape(spec.base)).feasible_share() > 0


def test_readme_example_code_prints_the_result_in_its_comment(tmp_path, capsys):
    code = examples(README)["brief"]
    (tmp_path / "example.py").write_text(code)
    runpy.run_path(str(tmp_path / "example.py"))
    assert capsys.readouterr().out.strip() == re.search(r"# a perfect restorer: (\S+)", code)[1]


def test_library_page_example_restores_images(tmp_path, monkeypatch, capsys):
    (tmp_path / "example.py").write_text(examples(ROOT / "docs" / "library.md")["library"])
    monkeypatch.chdir(tmp_path)  # the example prepares its data in ./runs
    runpy.run_path("example.py")
    lines = capsys.readouterr().out.splitlines()
    rmse = {name: float(value) for name, _, value in map(str.split, lines)}
    assert max(rmse["direct"], rmse["tacos"]) < rmse["degraded"]


@pytest.fixture(scope="module")
def with_pixelate(tmp_path_factory) -> Path:
    """Return a copy of the source in which the recipe of CONTRIBUTING.md was followed."""
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


def test_contributed_degradation_passes_its_tests(with_pixelate):
    done = run(
        sys.executable, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", "tests", cwd=with_pixelate,
        PYTHONPATH=str(with_pixelate / "platform"),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) > 20


def test_contributed_degradation_can_be_searched(with_pixelate):
    script = (
        "from pathlib import Path; from coldtune.studies.spec.build import build_spec; "
        "from coldtune.studies.space.validate import build_space; "
        "spec = build_spec('sweep', Path('search_spaces/pixelate.yaml')); "
        "print(build_space(spec.space, spec.base, (1, 16, 16)).feasible_share())"
    )
    done = run(sys.executable, "-c", script, cwd=with_pixelate, PYTHONPATH=str(with_pixelate / "platform"))
    assert (done.stdout.strip(), done.stderr) == ("1.0", "")


def test_contributed_files_pass_the_linter(with_pixelate):
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

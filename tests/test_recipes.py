"""Every recipe is followed in a copy of the source, where its files are checked and its tests are run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from xml.etree import ElementTree

import pytest

from recipes import CONTRIBUTING, RECIPES, ROOT, changed_files, commands, follow, patched

MOST_FILES = {CONTRIBUTING: 4}  # a degradation comes with a search space
IGNORED = shutil.ignore_patterns("__pycache__", "golden")
every_recipe = pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the repository in which all recipes were followed."""
    copy = tmp_path_factory.mktemp("recipes")
    for name in ("platform", "tests", "jobs", "search_spaces", "docs"):
        shutil.copytree(ROOT / name, copy / name, ignore=IGNORED)
    for path in (ROOT / "pyproject.toml", *ROOT.glob("*.md")):
        shutil.copy(path, copy)
    for recipe in RECIPES:
        follow(recipe, copy)
    return copy


def run(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(cwd / "platform")}
    return subprocess.run([sys.executable, "-m", *words], cwd=cwd, env=env, capture_output=True, text=True, check=False)


def own_tests(recipe: Path) -> dict[str, str]:
    """Return the test files that a recipe runs, each with the `-k` expression that selects its tests, or with ""."""
    files = {}
    for words in filter(None, commands(recipe, "uv run pytest ")):
        selected = words[words.index("-k") + 1] if "-k" in words else ""
        files |= {word: selected for word in words if word.endswith(".py")}
    return files


@pytest.fixture(scope="module")
def results(copy: Path) -> dict[str, list[str]]:
    """Run the tests of all recipes in a single process, because each process imports torch.

    Returns:
        For each test file the outcomes of its tests: "passed", "skipped", or the XML of a failure.
    """
    tests = [(name, selected) for recipe in RECIPES for name, selected in own_tests(recipe).items()]
    partly = " or ".join(Path(name).stem for name, selected in tests if selected)
    expression = " or ".join(
        f"({Path(name).stem} and {f'({selected})' if selected else f'not ({partly})'})" for name, selected in tests
    )
    report = copy / "report.xml"
    done = run(
        "pytest", "-q", "-n0", "-p", "no:cacheprovider", f"--junitxml={report}", "-k", expression,
        *sorted({name for name, _ in tests}), cwd=copy,
    )  # fmt: skip
    assert report.exists(), done.stdout + done.stderr
    outcomes = defaultdict(list)
    for case in ElementTree.parse(report).iter("testcase"):
        failed = [ElementTree.tostring(part, "unicode") for part in case if part.tag in ("failure", "error")]
        outcome = "skipped" if case.find("skipped") is not None else "passed"
        place = case.attrib["classname"].split(".")
        name = "/".join(place[: next(i for i, part in enumerate(place) if part.startswith("test_")) + 1])
        outcomes[f"{name}.py"].append("\n".join(failed) or outcome)
    return outcomes


@every_recipe
def test_recipe_changes_few_files(recipe: Path) -> None:
    files = changed_files(recipe)
    assert 2 <= len(files) <= MOST_FILES.get(recipe, 3)
    for name, text in files.items():
        if name.endswith(".py"):
            compile(text, name, "exec")


@every_recipe
def test_recipe_runs_tests_that_exist(recipe: Path) -> None:
    files, added = own_tests(recipe), changed_files(recipe)
    assert files
    assert [name for name in files if name not in added and not (ROOT / name).exists()] == []
    assert [name for name in added if name.startswith("tests/") and name not in files] == []


def test_recipe_files_pass_the_linter(copy: Path) -> None:
    files = [name for recipe in RECIPES for name in changed_files(recipe) if name.endswith(".py")]
    for verb in (["check"], ["format", "--check"]):
        done = run("ruff", *verb, "--no-cache", *files, cwd=copy)
        assert done.returncode == 0, done.stdout


@every_recipe
def test_recipe_passes_its_own_tests(results: dict[str, list[str]], recipe: Path) -> None:
    for name in own_tests(recipe):
        failed = [outcome for outcome in results[name] if outcome not in ("passed", "skipped")]
        assert not failed, "\n".join(failed)
        assert "passed" in results[name], f"{name} ran no test"


@pytest.mark.slow
def test_recipe_files_pass_the_type_checker(copy: Path) -> None:
    done = run("mypy", "--no-incremental", cwd=copy)
    assert done.returncode == 0, done.stdout


def test_recipes_page_lists_every_recipe() -> None:
    page = (ROOT / "docs" / "recipes" / "README.md").read_text()
    assert [recipe.name for recipe in RECIPES if recipe.name not in page] == []


def test_patched_edit_without_a_single_place_is_refused() -> None:
    assert patched("a\nb\n\nc\n", " b\n+new\n\n-c\n@@\n-a\n", "file") == "b\nnew\n\n"
    for diff in (" a\n b\n c\n", " x\n"):
        with pytest.raises(ValueError, match="file has 0 places"):
            patched("a\nb\nd\n", diff, "file")
    with pytest.raises(ValueError, match="file has 2 places"):
        patched("a\nb\na\n", " a\n", "file")

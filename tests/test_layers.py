"""The order of packages and rooms: who may import whom, and what may be loaded on a machine that only has torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "platform"
PURE = ("diffusion", "data", "metrics", "verdicts", "training", "reports")
WRAPPERS = {"coldtune.training.distributed"}
FORBIDDEN = ("ray", "mlflow", "optuna", "diffusers")

# The rooms of studies/ from the ground up: a room may import from itself and from the rooms above it in this list.
ROOMS = (
    "space",  # the search space
    "storage",  # Optuna backends and the records that a study keeps
    "drivers",  # several driver processes of one study
    "search",  # the next point, and which trial ends early
    "worker",  # the trial's own process
    "spec",  # what a study is
    "trials",  # the ledger: ask, tell, count
    "estimate",  # what a study would cost
    "preflight",  # options and checks
    "designs",  # ablation designs
    "insight",  # importance and health checks
    "progress",  # what people see
    "execution",  # Ray
)
# Packages from the ground up. `tracking` and `reports` are leaves, which packages above them call.
PACKAGES = (
    "diffusion",
    "data",
    "metrics",
    "verdicts",
    "training",
    "store",
    "tracking",
    "reports",
    "stages",
    "studies",
    "cli",
)


def name_of(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def modules(package: str) -> list[str]:
    names = [name_of(path) for path in sorted((SOURCE / "coldtune" / package).rglob("*.py"))]
    return [name for name in names if name not in WRAPPERS and not name.endswith("__main__")]


def imports(path: Path, known: set[str]) -> Iterator[str]:
    """Yield the modules that a file imports, in functions and under TYPE_CHECKING too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in known else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.fixture(scope="module")
def graph() -> dict[str, set[str]]:
    """The modules of the package, and the modules of the package that each imports."""
    paths = {name_of(path): path for path in (SOURCE / "coldtune").rglob("*.py")}
    known = set(paths)
    return {name: (set(imports(path, known)) & known) - {name} for name, path in paths.items()}


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Return the modules of import circles (and of the ways between them), or an empty list if there are none."""
    left = dict(graph)
    while ends := [name for name in left if not left[name] & left.keys() or not any(name in left[o] for o in left)]:
        for name in ends:
            del left[name]
    return sorted(left)


def upwards(graph: dict[str, set[str]], depth: int, order: tuple[str, ...]) -> list[str]:
    """Return the imports that run against `order`, the parts of module names at `depth`, from the ground up."""

    def place(name: str) -> int | None:
        parts = name.split(".")
        return order.index(parts[depth]) if len(parts) > depth and parts[depth] in order else None

    found = []
    for name, others in graph.items():
        for other in others:
            mine, theirs = place(name), place(other)
            if mine is not None and theirs is not None and theirs > mine:
                found.append(f"{name} imports {other}")
    return sorted(found)


def test_circle_of_three_modules_is_found():
    assert circle({"a": {"b", "e"}, "b": {"c"}, "c": {"a"}, "d": {"a"}, "e": set()}) == ["a", "b", "c"]


def test_layers_no_import_circle_exists(graph):
    assert len(graph) > 200
    assert circle(graph) == []


def test_rooms_of_studies_are_all_in_the_order():
    folders = {path.parent.name for path in (SOURCE / "coldtune" / "studies").glob("*/__init__.py")}
    assert folders == set(ROOMS)


def test_rooms_of_studies_import_only_from_rooms_above(graph):
    studies = {name: others for name, others in graph.items() if name.startswith("coldtune.studies.")}
    assert upwards(studies, 2, ROOMS) == []


def test_packages_import_only_from_packages_above(graph):
    folders = {path.parent.name for path in (SOURCE / "coldtune").glob("*/__init__.py")}
    assert folders == {*PACKAGES, "testing"}
    assert upwards(graph, 1, PACKAGES) == []


def loaded_by(names: list[str]) -> set[str]:
    """Return the top-level packages that a fresh interpreter has loaded after importing `names`."""
    script = f"import importlib, sys\nfor name in {names!r}: importlib.import_module(name)\n"
    script += "print('\\n'.join({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_pure_packages_load_no_service_of_the_platform():
    names = [name for package in PURE for name in modules(package)]
    assert {f"coldtune.{package}" for package in PURE} <= set(names)
    loaded = loaded_by(names)
    assert "coldtune" in loaded
    assert not loaded & set(FORBIDDEN)


def test_package_coldtune_loads_no_large_library():
    assert not loaded_by(["coldtune"]) & {"torch", "numpy", "pydantic", *FORBIDDEN}


def test_platform_folder_is_not_a_package():
    """The name `platform` is the standard library's, and the repository's root lands on every worker's sys.path."""
    assert not (SOURCE / "__init__.py").exists()
    script = "import platform; print(platform.python_version())"
    done = subprocess.run([sys.executable, "-c", script], cwd=SOURCE.parent, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ".".join(str(part) for part in sys.version_info[:3])


STUDIES = SOURCE / "coldtune" / "studies"
# `database` overrides private methods of Optuna's database storage, which only a subclass can do.
# `lost_workers` replaces private methods of Ray Tune, for which there is no setting.
PRIVATE_API = {"optuna_private.py", "database.py", "lost_workers.py"}
STORED_ATTRIBUTES = {"record.py", *PRIVATE_API}


def nodes_outside(files: set[str]) -> Iterator[tuple[str, ast.AST]]:
    """Every node of the syntax trees of studies/, but for `files`, with a description of its place."""
    for path in sorted(STUDIES.rglob("*.py")):
        if path.name not in files:
            for node in ast.walk(ast.parse(path.read_text())):
                yield f"{path.relative_to(STUDIES)}:{getattr(node, 'lineno', '')}", node


def test_optunas_private_api_is_used_in_one_module():
    """Studies read private attributes from `self`, `cls` and `super()` only, and import no private module of Optuna."""
    found = []
    for place, node in nodes_outside(PRIVATE_API):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("optuna"):
            names = [*node.module.split("."), *(alias.name for alias in node.names)]
            found += [place for name in names if name.startswith("_")]
        elif isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
            owner = ast.unparse(node.value)
            found += [place] if owner not in ("self", "cls", "super()", "os") else []
    assert not found


def test_stored_attributes_are_read_by_name_in_one_module():
    """The names of stored attributes appear as strings in storage/record.py only."""
    stored = {"user_attrs", "system_attrs"}
    found = []
    for place, node in nodes_outside(STORED_ATTRIBUTES):
        if isinstance(node, ast.Subscript) or (isinstance(node, ast.Attribute) and node.attr == "get"):
            node = node.value
        elif isinstance(node, ast.Compare):
            node = node.comparators[0]
        else:
            continue
        found += [place] if isinstance(node, ast.Attribute) and node.attr in stored else []
    assert not found

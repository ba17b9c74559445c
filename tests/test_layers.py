"""Who may import what: diffusion, data, metrics and the training loop run on any machine that has torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "platform"
PURE = ("diffusion", "data", "metrics", "training")
WRAPPERS = {"coldtune.training.distributed"}
FORBIDDEN = ("ray", "mlflow", "optuna", "diffusers")


def modules(package: str) -> list[str]:
    names = []
    for path in sorted((SOURCE / "coldtune" / package).rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        names.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return [name for name in names if name not in WRAPPERS and not name.endswith("__main__")]


def loaded_by(imports: list[str]) -> set[str]:
    """The top-level packages in a fresh interpreter after `imports`."""
    script = f"import importlib, sys\nfor name in {imports!r}: importlib.import_module(name)\n"
    script += "print('\\n'.join({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize("package", PURE)
def test_no_module_loads_the_platforms_services(package):
    names = modules(package)
    assert f"coldtune.{package}" in names
    loaded = loaded_by(names)
    assert "coldtune" in loaded
    assert not loaded & set(FORBIDDEN)


def test_the_package_itself_loads_in_no_time():
    assert not loaded_by(["coldtune"]) & {"torch", "numpy", "pydantic", *FORBIDDEN}


def test_platform_is_not_a_package():
    """The name `platform` is the standard library's, and the repository's root lands on every worker's sys.path."""
    assert not (SOURCE / "__init__.py").exists()
    script = "import platform; print(platform.python_version())"
    done = subprocess.run([sys.executable, "-c", script], cwd=SOURCE.parent, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ".".join(str(part) for part in sys.version_info[:3])

"""Tests of feature extractors of the user's own: what is called, whose fault an error is, and who may name them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from coldtune.memory import MemoryExhaustedError
from coldtune.metrics import build_extractor
from coldtune.metrics.extractors import check_origin

MODULE = """
import asyncio, functools, sys, torch
from math import floor
from sys import exit as leave

def flat(images):
    return images.float().flatten(1)[:, :2]
flat.dim = 2

def make():
    return flat

class Net:
    dim = 3
    input = "as given"
    def __call__(self, images):
        return images.float().flatten(1)[:, :3]

class NeedsArgument:
    dim = 3
    def __init__(self, weights): ...

class NoDim:
    def __call__(self, images): ...

no_dim = NoDim()
part = functools.partial(Net)
def needs(x): ...
def exits(): sys.exit(0)
def raises(): raise TypeError("first line\\nsecond line")
def missing(): open("/nowhere/weights")
def nothing(): ...
async def later(): ...
def many(): yield flat

def bad(value):
    class Bad:
        dim = 2
        def __call__(self, images):
            return value(images)
    return Bad
bool_dim = type("BoolDim", (Net,), {"dim": True})
zero_dim = type("ZeroDim", (Net,), {"dim": 0})
exit_on_images = bad(lambda images: sys.exit(0))
raise_on_images = bad(lambda images: {}["key"])
text_of_images = bad(lambda images: "text")
wrong_rank = bad(lambda images: images.float())
interrupts = bad(lambda images: (_ for _ in ()).throw(KeyboardInterrupt()))
out_of_memory = bad(lambda images: (_ for _ in ()).throw(RuntimeError("DefaultCPUAllocator: out of memory")))
"""
IMAGES = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)


@pytest.fixture(autouse=True)
def _modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "own_extractors.py").write_text(MODULE)
    (tmp_path / "own_exits.py").write_text("import sys\nsys.exit(0)\n")
    (tmp_path / "own_raises.py").write_text("raise RuntimeError('one\\ntwo')\n")
    (tmp_path / "own_syntax.py").write_text("def\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in [name for name in sys.modules if name.startswith("own_")]:
        del sys.modules[name]


@pytest.mark.parametrize(("name", "dim"), [("flat", 2), ("make", 2), ("Net", 3), ("part", 3)])
def test_own_extractor_object_class_or_function_is_used(name: str, dim: int) -> None:
    assert build_extractor(f"own_extractors:{name}")(IMAGES).shape == (4, dim)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("sys:exit", "sys contains no extractor"),
        ("os:system", "os contains no extractor"),
        ("os:abort", "os contains no extractor"),
        ("builtins:input", "builtins contains no extractor"),
        ("subprocess:Popen", "subprocess contains no extractor"),
        ("coldtune.cli:main", "coldtune.cli contains no extractor"),
        ("own_extractors:leave", "is defined in sys"),
        ("own_extractors:floor", "is defined in math"),
        ("own_extractors:needs", r"does not allow that \(missing a required argument: 'x'\)"),
        ("own_extractors:NeedsArgument", "missing a required argument: 'weights'"),
        ("own_extractors:no_dim", "int attribute dim"),
        ("own_extractors:nothing", "int attribute dim"),
        ("own_extractors:bool_dim", "int attribute dim"),
        ("own_extractors:zero_dim", "int attribute dim"),
        ("own_extractors:later", "coroutine"),
        ("own_extractors:many", "generator"),
        ("own_extractors:exits", "fails when it is called: SystemExit: 0"),
        ("own_extractors:raises", "fails when it is called: TypeError: first line$"),
        ("own_extractors:missing", "fails when it is called: FileNotFoundError"),
        ("own_extractors:nowhere", "cannot be imported"),
        ("own_exits:Net", "cannot be imported: SystemExit: 0"),
        ("own_raises:Net", "cannot be imported: RuntimeError: one$"),
        ("own_syntax:Net", "cannot be imported: SyntaxError"),
        ("own_nowhere:Net", "PYTHONPATH"),
    ],
)
def test_own_extractor_that_cannot_be_made_is_refused_in_one_line(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        build_extractor(name)
    assert str(caught.value).startswith(f"extractor = {name!r}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("exit_on_images", "fails on images: SystemExit: 0"),
        ("raise_on_images", "fails on images: KeyError: 'key'"),
        ("text_of_images", r"returns str, but a tensor \(B, 2\) is needed"),
        ("wrong_rank", r"returns shape \(4, 1, 8, 8\), but a tensor"),
    ],
)
def test_own_extractor_that_fails_on_images_is_the_users_error(name: str, message: str) -> None:
    extractor = build_extractor(f"own_extractors:{name}")
    with pytest.raises(ValueError, match=message):
        extractor(IMAGES)


def test_own_extractor_interruption_and_exhausted_memory_stay_what_they_are() -> None:
    with pytest.raises(KeyboardInterrupt):
        build_extractor("own_extractors:interrupts")(IMAGES)
    with pytest.warns(UserWarning, match="out of memory"), pytest.raises(MemoryExhaustedError):
        build_extractor("own_extractors:out_of_memory")(IMAGES)


def test_check_origin_code_from_elsewhere_needs_the_users_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLDTUNE_ALLOW_CODE", raising=False)
    check_origin("digits", "x/config.yaml", "do that")
    with pytest.raises(ValueError, match=r"'evil:f' of x/config\.yaml would run code of the module evil.*do that"):
        check_origin("evil:f", "x/config.yaml", "do that")
    monkeypatch.setenv("COLDTUNE_ALLOW_CODE", "0")
    with pytest.raises(ValueError, match="COLDTUNE_ALLOW_CODE=1"):
        check_origin("evil:f", "x/config.yaml", "do that")
    monkeypatch.setenv("COLDTUNE_ALLOW_CODE", "1")
    check_origin("evil:f", "x/config.yaml", "do that")

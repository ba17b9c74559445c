"""The spec of a study: its name, its file, and the changes that the command line may make."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from coldtune import data
from coldtune.metrics.extractors import EXTRACTORS
from coldtune.studies.spec.build import JUDGES, build_spec
from coldtune.studies.spec.folder import StudyFolder
from coldtune.studies.spec.study import StudySpec


@pytest.fixture
def space(root: Path) -> Path:
    return root / "search_spaces" / "blur.yaml"


def test_spec_name_is_job_and_hash_of_the_spec(space: Path) -> None:
    spec = build_spec("sweep_blur", space)
    assert spec.name.startswith("sweep_blur-")
    assert len(spec.name) == len("sweep_blur-") + 6
    assert build_spec("sweep_blur", space).name == spec.name
    others = [
        build_spec("sweep_mask", space),
        build_spec("sweep_blur", space, seed=1),
        build_spec("sweep_blur", space, dataset="mnist"),
        build_spec("sweep_blur", space, settings=["training.steps=5"]),
        build_spec("sweep_blur", space, settings=["protocol.num_images=300"]),
        build_spec("sweep_blur", space, settings=["search.algorithm=random"]),
    ]
    assert len({spec.name, *(other.name for other in others)}) == 7


def test_build_spec_setting_equal_to_the_base_changes_nothing(space: Path) -> None:
    assert build_spec("j", space, settings=["degradation.steps=20", "data.flip=false"]) == build_spec("j", space)


def test_spec_saved_and_loaded_is_equal(space: Path, tmp_path: Path) -> None:
    spec = build_spec("sweep_blur", space, seed=3, settings=["training.lr=2e-3"])
    spec.save(tmp_path)
    assert StudySpec.load(tmp_path) == spec
    assert spec.base["training"]["lr"] == 2e-3
    assert spec.base["training"]["seed"] == 3


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["training.stepz=1"], r"training\.stepz = 1: unknown key; allowed: .*steps"),
        (["training.steps=many"], r"training\.steps = 'many'"),
        (["training.steps"], r"--set training\.steps: must be key=value"),
        (["training.steps=[1"], "not valid YAML"),
        (["trainin.steps=1"], "trainin: unknown section; allowed: data, degradation"),
        (["data.name.first=x"], r"data\.name is a value"),
        (["search.algorithm=cmaes"], r"search\.algorithm = 'cmaes'.*'tpe'"),
        (["degradation=blur"], "degradation = 'blur': must be a mapping"),
    ],
)
def test_build_spec_wrong_setting_is_refused(space: Path, settings: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        build_spec("j", space, settings=settings)


def test_build_spec_dataset_sets_its_extractor_or_is_refused(space: Path) -> None:
    for dataset in ("mnist", "cifar10"):
        assert build_spec("j", space, dataset=dataset).base["protocol"]["extractor"] == dataset
    with pytest.raises(ValueError, match=r"data\.name = 'squares': unknown dataset; allowed: .*mnist"):
        build_spec("j", space, dataset="squares")
    own = build_spec("j", space, dataset="cifar10", settings=["protocol.extractor=my.module:judge"])
    assert own.base["protocol"]["extractor"] == "my.module:judge"


def test_build_spec_dataset_without_a_judge_is_refused(space: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(JUDGES, "mnist")
    with pytest.raises(ValueError, match=r"protocol\.extractor: no judge ships for dataset 'mnist'.*module:"):
        build_spec("j", space, dataset="mnist")


def test_judges_cover_every_dataset_with_existing_extractors() -> None:
    assert set(JUDGES) == set(data.names())
    assert set(JUDGES.values()) <= set(EXTRACTORS)


def test_study_folder_with_another_spec_or_pixels_is_refused(space: Path, tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path, "mine")
    folder.save(build_spec("j", space), {"trials": 8, "fingerprint": "abc"})
    folder.check_same_study(build_spec("j", space), "abc")
    with pytest.raises(ValueError, match=r"(?s)another spec.*base\.training\.steps: 5, there 300"):
        folder.check_same_study(build_spec("j", space, settings=["training.steps=5"]), "abc")
    with pytest.raises(ValueError, match="other pixels"):
        folder.check_same_study(build_spec("j", space), "def")


def test_study_folder_starting_makes_a_second_driver_wait(tmp_path: Path) -> None:
    folder, order = StudyFolder(tmp_path, "mine"), []

    def start() -> None:
        with StudyFolder(tmp_path, "mine").starting():
            order.append("second")

    second = threading.Thread(target=start)
    with folder.starting():
        second.start()
        second.join(0.2)
        order.append("first")
    second.join()
    assert order == ["first", "second"]


@pytest.mark.parametrize("name", ["", "a/b", ".hidden"])
def test_study_folder_wrong_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="must be a folder's name"):
        StudyFolder(tmp_path, name)


def test_spec_save_killed_while_writing_leaves_no_spec(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = build_spec("j", root / "search_spaces" / "blur.yaml")

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        spec.save(tmp_path)
    monkeypatch.undo()
    assert not (tmp_path / "spec.yaml").exists()
    spec.save(tmp_path)
    assert type(spec).load(tmp_path) == spec


def test_spec_of_one_thread_has_the_name_of_older_studies(space: Path) -> None:
    spec = build_spec("sweep_blur", space)
    one, two = (spec.model_copy(update={"threads": count}) for count in (1, 2))
    assert spec.threads is None
    assert spec.name == one.name != two.name


def test_spec_of_unknown_threads_goes_on_with_one_thread(space: Path) -> None:
    began = build_spec("sweep_blur", space)
    one, two = (began.model_copy(update={"threads": count}) for count in (1, 2))
    assert not one.differences(began)
    assert one.with_threads_of(began) == began
    assert one.with_threads_of(two) == one
    assert one.differences(two) == ["threads: 1, there 2"]
    assert two.differences(began) == ["threads: 2, there None"]

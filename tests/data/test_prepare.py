from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from sklearn.datasets import load_digits
from synthetic_files import random_images, write_mnist

from coldtune.data import Dataset, arrow, names, prepare, prepared, verify

DIGITS = {"name": "digits", "image_size": 16}


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return prepare(DIGITS, tmp_path_factory.mktemp("home"))


@pytest.fixture
def copy(digits: Dataset, tmp_path: Path) -> Dataset:
    """A copy of the prepared dataset in another home, which a test may damage."""
    path = tmp_path / "data" / digits.path.name
    shutil.copytree(digits.path, path)
    return Dataset.open(path)


def test_prepare_digits_keeps_published_images_in_three_splits(tmp_path: Path) -> None:
    dataset = prepare({"name": "digits", "image_size": 8}, tmp_path)
    images = torch.cat([dataset.split(split).images for split in ("train", "validation", "test")])
    labels = torch.cat([dataset.split(split).labels for split in ("train", "validation", "test")])
    pixels, targets = load_digits(return_X_y=True)
    published = sorted(
        (np.rint(row * 255 / 16).astype(np.uint8).tobytes(), t) for row, t in zip(pixels, targets, strict=True)
    )
    assert sorted((i.numpy().tobytes(), int(t)) for i, t in zip(images, labels, strict=True)) == published
    assert dataset.image_shape == (1, 8, 8)
    assert dataset.sizes == {split: len(dataset.split(split)) for split in ("train", "validation", "test")}
    for split, fraction in {"train": 0.6, "validation": 0.2, "test": 0.2}.items():
        assert abs(dataset.sizes[split] / 1797 - fraction) < 0.05
        assert len(dataset.split(split).labels.unique()) == dataset.num_classes == 10


def test_split_has_documented_types_and_shape(digits: Dataset) -> None:
    split = digits.split("validation")
    assert split.images.dtype == torch.uint8
    assert split.labels.dtype == torch.int64
    assert split.images.shape == (len(split), 1, 16, 16)
    assert split.images.is_contiguous()
    assert digits.split("validation") is split


def test_prepare_same_index_is_same_image_at_every_size(tmp_path: Path) -> None:
    small = prepare({"name": "digits", "image_size": 8, "resize": "nearest"}, tmp_path)
    large = prepare({"name": "digits", "image_size": 16, "resize": "nearest"}, tmp_path)
    for split in small.sizes:
        assert torch.equal(large.split(split).images[:, :, ::2, ::2], small.split(split).images)
        assert torch.equal(large.split(split).labels, small.split(split).labels)
    assert small.fingerprint != large.fingerprint


def test_prepare_twice_writes_once(digits: Dataset) -> None:
    before = {path: path.stat().st_mtime_ns for path in digits.path.iterdir()}
    again = prepare(DIGITS, digits.path.parents[1])
    assert again.path == digits.path
    assert {path: path.stat().st_mtime_ns for path in again.path.iterdir()} == before


def test_prepare_folder_name_and_fingerprint_are_stable(digits: Dataset) -> None:
    """The values are those of commit 14454b4. If they change, every home loses its prepared data and stored results."""
    assert digits.path.name == "digits-16-bilinear-2074323d"
    assert digits.fingerprint == "1d327d92ec7568d23ca8c81e1de57ea1021906d26233a8c713073d6d371997b2"


def test_prepare_augmentation_settings_reuse_the_folder(digits: Dataset) -> None:
    home = digits.path.parents[1]
    assert prepare({**DIGITS, "crop_pad": 2, "flip": True}, home).path == digits.path
    assert prepare({**DIGITS, "resize": "nearest"}, home).path != digits.path


def test_prepare_shuffled_files_have_the_same_fingerprint(tmp_path: Path) -> None:
    train, test = random_images(60, 1, 28, seed=1), random_images(20, 1, 28, seed=2)
    order = np.random.default_rng(3).permutation(60)
    write_mnist(tmp_path / "a", train, test)
    write_mnist(tmp_path / "b", (train[0][order], train[1][order]), (test[0][::-1], test[1][::-1]))
    a, b = (prepare({"name": "mnist", "image_size": 28}, tmp_path, tmp_path / folder) for folder in "ab")
    assert a.path != b.path
    assert a.fingerprint == b.fingerprint
    for split in a.sizes:
        assert torch.equal(a.split(split).images, b.split(split).images)
        assert torch.equal(a.split(split).labels, b.split(split).labels)


@pytest.mark.parametrize("part", [0, 1])
def test_prepare_one_changed_pixel_changes_the_fingerprint(tmp_path: Path, part: int) -> None:
    parts = [random_images(60, 1, 28, seed=1), random_images(20, 1, 28, seed=2)]
    write_mnist(tmp_path / "a", *parts)
    parts[part][0][7, 0, 3, 3] ^= 1
    write_mnist(tmp_path / "b", *parts)
    a, b = (prepare({"name": "mnist", "image_size": 28}, tmp_path, tmp_path / folder) for folder in "ab")
    assert a.fingerprint != b.fingerprint
    with pytest.raises(ValueError, match="was prepared from different files"):
        prepare({"name": "mnist", "image_size": 28}, tmp_path)


def test_prepare_without_data_dir_finds_the_prepared_folder(tmp_path: Path) -> None:
    write_mnist(tmp_path / "files", random_images(60, 1, 28, 1), random_images(20, 1, 28, 2))
    first = prepare({"name": "mnist"}, tmp_path, tmp_path / "files")
    shutil.rmtree(tmp_path / "files")
    assert prepare({"name": "mnist"}, tmp_path).path == first.path


def test_dataset_is_pickled_as_its_path(digits: Dataset) -> None:
    data = pickle.dumps(digits)
    assert len(data) < 1000
    again = pickle.loads(data)
    assert torch.equal(again.split("test").images, digits.split("test").images)


def test_split_file_is_readable_by_any_arrow_reader(digits: Dataset) -> None:
    with pa.OSFile(str(digits.path / "test.arrow")) as file:
        table = pa.ipc.open_file(file).read_all()
    images = table["image"].combine_chunks().to_numpy_ndarray()
    assert np.array_equal(images, digits.split("test").images.numpy())
    assert table["label"].to_pylist() == digits.split("test").labels.tolist()


def test_split_write_to_tensor_does_not_reach_the_file(copy: Dataset) -> None:
    before = (copy.path / "test.arrow").read_bytes()
    original = copy.split("test").images.clone()
    copy.split("test").images.zero_()
    assert (copy.path / "test.arrow").read_bytes() == before
    assert torch.equal(Dataset.open(copy.path).split("test").images, original)


@pytest.mark.slow
def test_arrow_more_than_2_to_the_31_values_round_trip(tmp_path: Path) -> None:
    """CelebA's training part has 8 * 10^9 values at 128 pixels. Here only the pages of two images are written to."""
    shape = (2**31 // (3 * 64 * 64) + 2, 3, 64, 64)
    images = np.memmap(tmp_path / "pixels", np.uint8, "w+", shape=shape)
    images[0], images[-1] = 1, 2
    arrow.write(tmp_path / "x.arrow", images, np.zeros(shape[0], np.int64), tag="t")
    (tmp_path / "pixels").unlink()
    found = arrow.read(tmp_path / "x.arrow", tag="t", image_shape=shape[1:])
    read, labels = found.images, found.labels
    (tmp_path / "x.arrow").unlink()
    assert (tuple(read.shape), len(labels)) == (shape, shape[0])
    assert [int(read[i].float().mean()) for i in (0, 1, -2, -1)] == [1, 0, 0, 2]


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="needs Linux's /proc")
def test_split_images_lie_on_shared_pages_of_the_file(copy: Dataset) -> None:
    images = copy.split("train").images
    assert int(images.sum()) > 0
    mapping = mapping_of(copy.path / "train.arrow", images.data_ptr())
    assert mapping["start"] <= images.data_ptr()
    assert images.data_ptr() + images.numel() <= mapping["end"]
    assert mapping["Rss"] * 1024 >= images.numel() * 0.9
    assert mapping["Anonymous"] == 0
    images[0] = 0
    assert mapping_of(copy.path / "train.arrow", images.data_ptr())["Anonymous"] > 0


def mapping_of(path: Path, address: int) -> dict[str, int]:
    """Return the entry of /proc/self/smaps of `path` that contains `address`. Sizes are in KiB."""
    current: dict[str, int] | None = None
    for line in Path("/proc/self/smaps").read_text().splitlines():
        head, *rest = line.split()
        if "-" in head and not head.endswith(":"):
            start, end = (int(part, 16) for part in head.split("-"))
            if current is not None:
                break
            current = {"start": start, "end": end} if rest[-1:] == [str(path)] and start <= address < end else None
        elif current is not None and rest[-1:] == ["kB"]:
            current[head.rstrip(":")] = int(rest[0])
    assert current is not None, f"{path} is not mapped at {address:x}"
    return current


def truncate_manifest(path: Path) -> None:
    text = (path / "manifest.json").read_text()
    (path / "manifest.json").write_text(text[: len(text) // 2])


def forge_fingerprint(path: Path) -> None:
    record = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps({**record, "fingerprint": "0" * 64}))


def truncate_arrow(path: Path) -> None:
    data = (path / "train.arrow").read_bytes()
    (path / "train.arrow").write_bytes(data[: len(data) // 2])


def zero_arrow(path: Path) -> None:
    """Fill the file with zeros at its size, as some file systems leave it after a power cut."""
    (path / "train.arrow").write_bytes(bytes((path / "train.arrow").stat().st_size))


def foreign_arrow(path: Path) -> None:
    """Replace the file with a complete file of the same size and shape from another dataset."""
    shape = Dataset.open(path).split("train").images.shape
    arrow.write(path / "train.arrow", np.zeros(shape, np.uint8), np.zeros(shape[0], np.int64), tag="0" * 64)


def delete_arrow(path: Path) -> None:
    (path / "test.arrow").unlink()


def empty_folder(path: Path) -> None:
    shutil.rmtree(path)
    path.mkdir()
    (path / "notes.txt").write_text("someone else's")


def other_dataset(path: Path) -> None:
    """Replace the folder with a good dataset that has another image size."""
    other = prepare({"name": "digits", "image_size": 8}, path.parents[1] / "elsewhere")
    shutil.rmtree(path)
    shutil.copytree(other.path, path)


def plain_file(path: Path) -> None:
    shutil.rmtree(path)
    path.write_text("not a folder")


BREAKS = [
    truncate_manifest,
    forge_fingerprint,
    truncate_arrow,
    zero_arrow,
    foreign_arrow,
    delete_arrow,
    empty_folder,
    other_dataset,
    plain_file,
]


@pytest.mark.parametrize("break_it", BREAKS, ids=lambda function: function.__name__)
def test_prepare_torn_or_foreign_folder_is_rebuilt(digits: Dataset, copy: Dataset, break_it) -> None:
    break_it(copy.path)
    with pytest.warns(UserWarning, match="preparing it again"):
        again = prepare(DIGITS, copy.path.parents[1])
    assert again.path == copy.path
    assert again.fingerprint == digits.fingerprint
    assert verify(again.path).ok
    assert torch.equal(again.split("train").images, digits.split("train").images)


@pytest.mark.parametrize(
    "break_it", [b for b in BREAKS if b is not other_dataset], ids=lambda function: function.__name__
)
def test_dataset_torn_folder_is_refused_by_open_and_verify(copy: Dataset, break_it) -> None:
    break_it(copy.path)
    with pytest.raises(ValueError, match=str(copy.path)):
        Dataset.open(copy.path).split("train")
    report = verify(copy.path)
    assert not report.ok
    assert report.describe().startswith("bad: ")


@pytest.mark.parametrize("split", ["train", "validation", "test"])
@pytest.mark.parametrize("column", ["images", "labels"])
def test_verify_one_changed_byte_is_found(copy: Dataset, split: str, column: str) -> None:
    assert verify(copy.path).ok
    tensor = getattr(copy.split(split), column)
    start = mapped_offset(copy.path / f"{split}.arrow", tensor)
    with (copy.path / f"{split}.arrow").open("r+b") as file:
        file.seek(start)
        byte = file.read(1)[0]
        file.seek(start)
        file.write(bytes([byte ^ 1]))
    report = verify(copy.path)
    kind = "pixels" if column == "images" else "labels"
    assert [kind in problem and split in problem for problem in report.problems] == [True]


def mapped_offset(path: Path, tensor: torch.Tensor) -> int:
    """Return the offset of the bytes of `tensor` in the file."""
    return path.read_bytes().index(tensor.numpy().tobytes())


def test_verify_reports_sizes_and_fingerprint(digits: Dataset) -> None:
    report = verify(digits.path)
    assert (report.name, report.sizes, report.fingerprint) == ("digits", digits.sizes, digits.fingerprint)
    assert digits.fingerprint in report.describe()
    assert not verify(digits.path / "nowhere").ok


def test_prepare_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = arrow.write, []

    def second_write_fails(path: Path, *args, **kwargs) -> None:
        calls.append(path)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        real(path, *args, **kwargs)

    monkeypatch.setattr(arrow, "write", second_write_fails)
    with pytest.raises(OSError, match="No space left"):
        prepare(DIGITS, tmp_path)
    monkeypatch.undo()
    assert prepared(tmp_path) == []
    assert not [path for path in (tmp_path / "data").iterdir() if path.is_dir()]
    assert verify(prepare(DIGITS, tmp_path).path).ok


def test_prepare_leftovers_of_a_killed_preparation_are_removed(digits: Dataset, tmp_path: Path) -> None:
    left = tmp_path / "data" / f".{digits.path.name}.new-0123"
    left.mkdir(parents=True)
    (left / "train.arrow").write_bytes(b"half")
    assert prepare(DIGITS, tmp_path).fingerprint == digits.fingerprint
    assert not left.exists()


PREPARE_AT_ONCE = """
import sys, time
from pathlib import Path
from coldtune.data import prepare
me, others, homes = sys.argv[1], int(sys.argv[2]), [Path(home) for home in sys.argv[3:]]
import sklearn.datasets
for home in homes:
    (home / f"ready-{me}").touch()
    while len(list(home.glob("ready-*"))) < others:
        time.sleep(0.001)
    dataset = prepare({"name": "digits", "image_size": 16}, home)
    print(dataset.path.name, dataset.fingerprint, int(dataset.split("train").images.sum()))
"""


def test_prepare_by_two_processes_at_once_makes_one_dataset(digits: Dataset, tmp_path: Path) -> None:
    homes = [tmp_path / "empty", tmp_path / "torn"]
    for home in homes:
        home.mkdir()
    (homes[1] / "data" / digits.path.name).mkdir(parents=True)
    running = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", PREPARE_AT_ONCE, str(i), "2", *map(str, homes)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for i in range(2)
    ]
    try:
        outputs = [process.communicate(timeout=600)[0] for process in running]
    finally:
        for process in running:
            process.kill()
            process.wait()
    assert [process.returncode for process in running] == [0, 0]
    expected = f"{digits.path.name} {digits.fingerprint} {int(digits.split('train').images.sum())}\n"
    assert outputs == [expected * 2] * 2
    for home in homes:
        assert prepared(home) == [home / "data" / digits.path.name]
        assert verify(prepared(home)[0]).ok
        assert not list((home / "data").glob(".*new-*"))


def test_prepared_lists_folders_by_dataset_name(digits: Dataset, tmp_path: Path) -> None:
    home = digits.path.parents[1]
    assert digits.path in prepared(home)
    assert digits.path in prepared(home, "digits")
    assert prepared(home, "mnist") == prepared(tmp_path) == []


def test_prepare_digits_with_data_dir_warns(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="is ignored"):
        prepare(DIGITS, tmp_path, tmp_path)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"name": "imagenet"}, f"data.name = 'imagenet': unknown dataset; allowed: {', '.join(names())}"),
        ({"image_size": 4}, "data.image_size = 4: .*greater than or equal to 8"),
        ({"image_size": 1024}, "data.image_size = 1024: .*less than or equal to 256"),
        ({"resize": "area"}, "data.resize = 'area': .*'bilinear', 'bicubic' or 'nearest'"),
        ({"crop_pad": 16}, r"data.crop_pad = 16: must be below image_size \(16\)"),
        ({"crop_pad": -1}, "data.crop_pad = -1"),
        ({"size": 16}, "data.size = 16: unknown key; allowed: .*image_size"),
    ],
)
def test_prepare_wrong_setting_is_named_with_allowed_values(tmp_path: Path, setting: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        prepare(setting, tmp_path)
    assert not (tmp_path / "data").exists()


def test_split_unknown_name_is_refused(digits: Dataset) -> None:
    with pytest.raises(ValueError, match="split = 'val': allowed: train, validation, test"):
        digits.split("val")

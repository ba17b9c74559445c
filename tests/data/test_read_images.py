"""Tests of reading images that other programs made, from folders and array files, and of the errors in them."""

from __future__ import annotations

import io
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import save_file
from synthetic_files import jpeg_bytes, photo, png_bytes, random_images, write_tree

from coldtune.data import read_images

COLOUR = random_images(12, 3, 16)[0]
GREY = random_images(12, 1, 16)[0]


def picture(image: np.ndarray, mode: str = "RGB") -> Image.Image:
    grey = len(image) == 1
    return Image.fromarray(image[0] if grey else np.ascontiguousarray(image.transpose(1, 2, 0))).convert(mode)


def saved(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def folder(path: Path, images: np.ndarray = COLOUR, mode: str = "RGB") -> Path:
    write_tree(path, {f"{i}.png": saved(picture(image, mode)) for i, image in enumerate(images)})
    return path


@pytest.mark.parametrize(("images", "mode"), [(COLOUR, "RGB"), (GREY, "L")])
@pytest.mark.parametrize("with_shape", [True, False])
def test_read_images_folder_is_read_in_natural_order(
    tmp_path: Path, images: np.ndarray, mode: str, with_shape: bool
) -> None:
    read, names = read_images(folder(tmp_path, images, mode), images.shape[1:] if with_shape else None)
    assert read.dtype == torch.uint8
    assert read.is_contiguous()
    assert np.array_equal(read, images)
    assert names == [f"{i}.png" for i in range(12)]


def test_read_images_names_are_relative_paths_of_image_files_only(tmp_path: Path) -> None:
    order = ["2.png", "10.PNG", "a2/1.png", "a2/b.png", "a10/1.png", "z.png"]
    others = {".hidden.png": b"x", "a2/notes.txt": b"x", ".git/1.png": b"x", "__MACOSX/1.png": b"x", "labels.npy": b"x"}
    write_tree(tmp_path, {name: png_bytes(COLOUR[i]) for i, name in enumerate(order)} | others)
    with pytest.warns(UserWarning, match=r"a2/notes\.txt: not an image, so it is left out, as is 1 other file$"):
        read, names = read_images(str(tmp_path))
    assert names == order
    assert np.array_equal(read, COLOUR[: len(order)])


def test_read_images_reads_every_format(tmp_path: Path) -> None:
    image = picture(photo(1, 16, 16))
    kinds = {"a.bmp": "BMP", "b.jpeg": "JPEG", "c.jpg": "JPEG", "d.png": "PNG", "e.webp": "WEBP"}
    write_tree(tmp_path, {name: saved(image, kind, lossless=True, quality=95) for name, kind in kinds.items()})
    read, names = read_images(tmp_path, (3, 16, 16))
    assert names == list(kinds)
    for i in (0, 3, 4):
        assert np.array_equal(read[i], photo(1, 16, 16))
    assert torch.equal(read[1], read[2])
    assert np.abs(read[1].numpy().astype(int) - photo(1, 16, 16)).max() < 30


@pytest.mark.parametrize("mode", ["L", "1"])
def test_read_images_grey_files_match_grey_and_rgb_shapes(tmp_path: Path, mode: str) -> None:
    levels = GREY if mode == "L" else (GREY > 127) * np.uint8(255)
    write_tree(tmp_path, {f"{i}.png": saved(Image.fromarray(image[0]).convert(mode)) for i, image in enumerate(levels)})
    assert np.array_equal(read_images(tmp_path, (3, 16, 16))[0], levels.repeat(3, axis=1))
    assert np.array_equal(read_images(tmp_path, (1, 16, 16))[0], levels)


@pytest.mark.parametrize("mode", ["RGB", "P", "RGBA", "LA"])
def test_read_images_equal_channels_count_as_grey(tmp_path: Path, mode: str) -> None:
    path = folder(tmp_path, GREY, mode)
    assert np.array_equal(read_images(path, (1, 16, 16))[0], GREY)


def test_read_images_grey_file_among_colours_becomes_rgb(tmp_path: Path) -> None:
    write_tree(tmp_path, {"a.png": saved(picture(GREY[0], "L")), "b.png": png_bytes(COLOUR[0])})
    assert np.array_equal(read_images(tmp_path)[0], np.stack([GREY[0].repeat(3, axis=0), COLOUR[0]]))


def test_read_images_colours_for_a_grey_shape_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"0\.png is in colour, but only grey images are allowed"):
        read_images(folder(tmp_path), (1, 16, 16))


def test_read_images_only_opaque_alpha_channel_is_accepted(tmp_path: Path) -> None:
    path = folder(tmp_path, COLOUR, "RGBA")
    assert np.array_equal(read_images(path)[0], COLOUR)
    seen_through = picture(COLOUR[3], "RGBA")
    seen_through.putpixel((5, 5), (1, 2, 3, 254))
    write_tree(path, {"3.png": saved(seen_through)})
    with pytest.raises(ValueError, match=r"3\.png has transparent pixels"):
        read_images(path)


def test_read_images_palette_is_converted_to_rgb(tmp_path: Path) -> None:
    indexed = picture(COLOUR[0]).quantize(16)
    write_tree(tmp_path, {"a.png": saved(indexed), "b.png": saved(indexed)})
    read, _ = read_images(tmp_path)
    assert np.array_equal(read[0], np.asarray(indexed.convert("RGB")).transpose(2, 0, 1))
    write_tree(tmp_path, {"b.png": saved(indexed, transparency=0)})
    with pytest.raises(ValueError, match=r"b\.png has transparent pixels"):
        read_images(tmp_path)


@pytest.mark.parametrize(
    ("name", "content"), [("3.png", b"torn"), ("3.png", png_bytes(COLOUR[3])[:-200]), ("3.jpg", b"")]
)
def test_read_images_damaged_file_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    write_tree(folder(tmp_path), {name: content})
    with pytest.raises(ValueError, match=rf"{name} (is damaged|is not a JPEG)"):
        read_images(tmp_path)


def test_read_images_mixed_sizes_are_refused_with_two_names(tmp_path: Path) -> None:
    write_tree(folder(tmp_path), {"7.png": png_bytes(photo(0, 20, 16))})
    for shape in (None, (3, 16, 16)):
        with pytest.raises(ValueError, match=r"0\.png is 16 x 16 pixels, but .*7\.png is 20 x 16: .* the same size"):
            read_images(tmp_path, shape)


def test_read_images_other_size_without_resize_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r'0\.png is 16 x 16 .* not 8 x 8 .*changes FID.* resize="bilinear"'):
        read_images(folder(tmp_path / "a"), (3, 8, 8))
    np.save(tmp_path / "a.npy", COLOUR)
    with pytest.raises(ValueError, match=r"a\.npy: each image is 16 x 16 pixels, not 8 x 8"):
        read_images(tmp_path / "a.npy", (3, 8, 8))


@pytest.mark.parametrize("mode", ["bilinear", "bicubic", "nearest"])
def test_read_images_resize_agrees_with_dataset_resize(tmp_path: Path, mode: str) -> None:
    from coldtune.data.resize import resize

    np.save(tmp_path / "a.npy", COLOUR)
    for path in (folder(tmp_path / "a"), tmp_path / "a.npy"):
        assert np.array_equal(read_images(path, (3, 8, 8), resize=mode)[0], resize(COLOUR, 8, mode))


def test_read_images_resize_accepts_mixed_sizes_of_equal_aspect_ratio(tmp_path: Path) -> None:
    write_tree(folder(tmp_path), {"7.png": png_bytes(photo(0, 32, 32))})
    assert read_images(tmp_path, (3, 8, 8), resize="bilinear")[0].shape == (12, 3, 8, 8)
    write_tree(tmp_path, {"8.png": png_bytes(photo(0, 32, 31))})
    with pytest.raises(ValueError, match=r"8\.png is 32 x 31 .*resize = 'bilinear' would distort it"):
        read_images(tmp_path, (3, 8, 8), resize="bilinear")
    with pytest.raises(ValueError, match=r"resize = 'bilinear': needs the image_shape"):
        read_images(tmp_path, resize="bilinear")


def test_read_images_too_few_images_or_wrong_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere': no such directory; allowed: a directory of \.jpg"):
        read_images(tmp_path / "nowhere")
    write_tree(tmp_path, {"notes.txt": b"x"})
    with pytest.raises(ValueError, match="no images there; allowed"):
        read_images(tmp_path)
    write_tree(tmp_path, {"a.png": png_bytes(COLOUR[0])})
    with pytest.raises(ValueError, match="1 image there, but at least 2 are needed"):
        read_images(tmp_path)
    with pytest.raises(ValueError, match=r"a\.png': is not a directory"):
        read_images(tmp_path / "a.png")
    np.save(tmp_path / "a.npy", COLOUR[:1])
    with pytest.raises(ValueError, match="1 image there, but at least 2 are needed"):
        read_images(tmp_path / "a.npy")


def save(path: Path, **arrays: np.ndarray) -> Path:
    if path.suffix == ".safetensors":
        save_file({key: np.ascontiguousarray(array) for key, array in arrays.items()}, path)
    else:
        np.savez(path, **arrays) if path.suffix == ".npz" else np.save(path, *arrays.values())
    return path


@pytest.mark.parametrize("suffix", [".npz", ".npy", ".safetensors"])
@pytest.mark.parametrize("images", [COLOUR, GREY])
def test_read_array_channels_first_or_last_are_read(tmp_path: Path, suffix: str, images: np.ndarray) -> None:
    orders = [images, images.transpose(0, 2, 3, 1), *([images[:, 0]] if len(images[0]) == 1 else [])]
    for number, array in enumerate(orders):
        for shape in (None, images.shape[1:]):
            read, names = read_images(save(tmp_path / f"{number}{suffix}", images=array), shape)
            assert np.array_equal(read, images)
            assert read.is_contiguous()
            assert names == [str(i) for i in range(12)]


def test_read_array_ambiguous_axes_need_the_image_shape(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 256, (4, 3, 16, 3), dtype=np.uint8)
    path = save(tmp_path / "a.npy", images=array)
    with pytest.raises(ValueError, match=r"a\.npy: shape \(4, 3, 16, 3\); allowed"):
        read_images(path)
    assert np.array_equal(read_images(path, (3, 16, 3))[0], array)
    assert np.array_equal(read_images(path, (3, 3, 16))[0], array.transpose(0, 3, 1, 2))


def test_read_array_channels_are_converted_like_files(tmp_path: Path) -> None:
    assert np.array_equal(read_images(save(tmp_path / "a.npy", images=GREY), (3, 16, 16))[0], GREY.repeat(3, axis=1))
    assert np.array_equal(read_images(save(tmp_path / "b.npy", images=GREY.repeat(3, axis=1)), (1, 16, 16))[0], GREY)
    with pytest.raises(ValueError, match=r"c\.npy is in colour"):
        read_images(save(tmp_path / "c.npy", images=COLOUR), (1, 16, 16))


@pytest.mark.parametrize("key", ["arr_0", "anything"])
def test_read_array_npz_key_is_chosen(tmp_path: Path, key: str) -> None:
    assert np.array_equal(read_images(save(tmp_path / "a.npz", **{key: COLOUR}))[0], COLOUR)
    both = save(tmp_path / "b.npz", **{key: COLOUR, "labels": np.arange(12)})
    if key == "arr_0":
        assert np.array_equal(read_images(both)[0], COLOUR)
    else:
        with pytest.raises(
            ValueError, match=r"b\.npz .* its arrays are anything, labels, but .* called images is needed"
        ):
            read_images(both)


class Evil:
    def __reduce__(self) -> tuple:
        return (exec, ("raise SystemExit('a pickle was loaded')",))


@pytest.mark.parametrize("suffix", [".npz", ".npy", ".safetensors"])
def test_read_array_bad_file_is_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    for content in (b"", b"torn", pickle.dumps(Evil())):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"a{suffix} cannot be read"):
            read_images(path)
    whole = save(tmp_path / f"b{suffix}", images=COLOUR).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=rf"a{suffix} cannot be read"):
        read_images(path)
    for wrong in (COLOUR.astype(np.float32), COLOUR.astype(np.int64)):
        with pytest.raises(ValueError, match=rf"a{suffix}: images of dtype {wrong.dtype}, but only uint8"):
            read_images(save(path, images=wrong))
    for odd in (COLOUR[0, 0], COLOUR[:, :2], COLOUR[None]):
        with pytest.raises(ValueError, match=rf"a{suffix}: shape .*; allowed"):
            read_images(save(path, images=odd))


@pytest.mark.parametrize("suffix", [".npz", ".npy"])
def test_read_array_objects_are_not_unpickled(tmp_path: Path, suffix: str) -> None:
    path = save(tmp_path / f"a{suffix}", images=np.array([Evil(), Evil()], dtype=object))
    with pytest.raises(ValueError, match=rf"a{suffix}: images of dtype object, but only uint8"):
        read_images(path)


def test_read_array_safetensors_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"its tensors are x, but images is needed"):
        read_images(save(tmp_path / "a.safetensors", x=COLOUR))


def test_read_images_threads_keep_the_order(tmp_path: Path) -> None:
    write_tree(tmp_path, {f"{i}.jpg": jpeg_bytes(photo(i, 24, 24)) for i in range(100)})
    read, names = read_images(tmp_path)
    expected = [np.asarray(Image.open(tmp_path / name)).transpose(2, 0, 1) for name in names]
    assert np.array_equal(read, np.stack(expected))

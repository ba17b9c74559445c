"""Images of the user's own, and judges for them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from bad_row import Content, Row, command, fifo, folder, link, setting, space, with_mode
from PIL import Image


def png(seed: int, side: int = 16, mode: str = "RGB") -> bytes:
    """Return a random picture."""
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, len(mode)), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels, mode).save(out, "PNG")
    return out.getvalue()


GOOD: dict[str, Content] = {f"p/{i}.png": png(i) for i in range(24)}


def own(name: str, files: dict[str, Content], *says: str, verb: str = "prepare", **more: object) -> Row:
    """Return a row for a folder of good pictures and of `files`."""
    return command(name, f"data {verb} {{dir}}/p", says, files=GOOD | {f"p/{file}": content for file, content in
                   files.items()}, data=True, **more)  # fmt: skip


def only(name: str, files: dict[str, Content], *says: str, **more: object) -> Row:
    """Return a row for a folder of `files` alone."""
    return command(name, "data train-judge {dir}/p", says or ("{dir}/p", "at least 20 images"),
                   files={f"p/{file}": content for file, content in files.items()}, data=True, **more)  # fmt: skip


def loops(path: Path) -> None:
    """Make a folder whose links lead back to it."""
    folder(path)
    for name in "ab":
        link(".")(path / name)


def parquet(**columns: object) -> Content:
    """Return a function that writes a Parquet file."""
    return lambda path: pq.write_table(pa.table(columns), path)


def encoded(images: list[bytes | None]) -> pa.Array:
    return pa.array([{"bytes": data} for data in images], pa.struct([("bytes", pa.binary())]))


NO_JUDGE = """
base:
  data: {name: folder, image_size: 16}
  degradation: {kind: blur, kernel_size: 3, padding: circular, steps: 2, sigma: {schedule: constant, start: 1.0}}
vary: {training.lr: {low: 1e-4, high: 1e-3}}
"""

ROWS: list[Row] = [
    command("own-missing", "data train-judge {dir}/nosuch", says="{dir}/nosuch", data=True),
    command("own-a-file", "data train-judge {dir}/f", says="{dir}/f", files={"f": "text"}, data=True),
    only("own-empty-folder", {".hidden.png": png(0)}, "{dir}/p", "contains 0 images", "at least 20"),
    only("own-one-image", {"1.png": png(1)}, "{dir}/p", "contains 1 image;"),
    only("own-loops", {"l": loops}),
    only("own-parquet-text", {"a.parquet": "text"}, "a.parquet"),
    only("own-parquet-empty", {"a.parquet": b""}, "a.parquet"),
    only("own-parquet-pipe", {"a.parquet": fifo}, "a.parquet"),
    only("own-parquet-no-image", {"a.parquet": parquet(text=["x"])}, "a.parquet", "needed: image"),
    only("own-parquet-null", {"a.parquet": parquet(image=encoded([png(0), None]))}, "a.parquet, row 1"),
    only("own-parquet-few", {"a.parquet": parquet(image=encoded([png(0)]))}, "a.parquet", "at least 20"),
    only("own-parquet-shard", {"train-00001-of-00002.parquet": b""}, "{dir}/p", "train-00000-of-00002.parquet"),
    own("own-corrupt", {"z.png": png(0)[:200]}, "{dir}/p/z.png"),
    own("own-text", {"z.png": "text"}, "{dir}/p/z.png"),
    own("own-empty-file", {"z.png": b""}, "{dir}/p/z.png"),
    own("own-pipe", {"z.png": fifo}, "{dir}/p/z.png"),
    own("own-tiny", {"z.png": png(0, side=7)}, "{dir}/p/z.png", "8 x 8"),
    own("own-transparent", {"z.png": png(0, mode="RGBA")}, "{dir}/p/z.png", "opaque"),
    own("own-dead-link", {"z.png": link("nowhere")}, "{dir}/p/z.png"),
    own("own-unreadable", {"z.png": with_mode(0, "x")}, "{dir}/p/z.png", needs_user=True),
    own("own-stray", {"train/a.png": png(50), "test/b.png": png(51)}, "lies beside the folders of splits"),
    only("own-equal-images", {f"{i}.png": png(0) for i in range(24)}, "too few images (24 in all, 1 of them differ"),
    own("own-path-twice", {}, "--data-dir", "path already", verb="prepare --data-dir {dir}"),
    own("judge-epochs", {}, "--epochs 0: allowed: 1", verb="train-judge --epochs 0"),
    own("judge-dim", {}, "--dim 100000: allowed: 1", verb="train-judge --dim 100000"),
    own("judge-seed", {}, "--seed -1: allowed: 0", verb="train-judge --seed=-1"),
    own("judge-size", {}, "data.image_size = 3", verb="train-judge --image-size 3"),
    setting("judge-unknown", "protocol.extractor=judge.0123456789ab",
            ["judge.0123456789ab", "no such judge", "train-judge"], home="digits"),
    setting("judge-short", "protocol.extractor=judge.01", ["judge.01", "12 digits"], home="digits"),
    space("judge-missing", NO_JUDGE, ["protocol.extractor: required", "coldtune data train-judge PATH", "'folder'"]),
    setting("data-path-number", "data.path=3", ["data.path = 3", "text"], home="digits"),
    setting("data-path-empty", "data.path=", ["folder", "--data-dir"], "--dataset=folder", data=True),
]  # fmt: skip

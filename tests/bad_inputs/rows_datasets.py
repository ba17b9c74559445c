"""Published files of datasets, in the folder of `--data-dir`. The files themselves are read, so `data=True`."""

from __future__ import annotations

from bad_row import Content, Row, command, fifo, folder, link

TODO = "published files of datasets"
IDX = "train-images-idx3-ubyte"
PARQUET = "train-00000-of-00001.parquet"


def dataset(name: str, of: str, files: dict[str, Content], *says: str, **more: object) -> Row:
    """Return a row for `coldtune data prepare` with published files."""
    files = {f"d/{file}": content for file, content in files.items()} | {"d/.made": ""}
    return command(name, f"data prepare {of} --data-dir {{dir}}/d", says or ("{dir}/d",), files=files, data=True,
                   **more)  # fmt: skip


ROWS: list[Row] = [
    command("data-dir-missing", "data prepare mnist --data-dir {dir}/nosuch", says="{dir}/nosuch", data=True),
    dataset("data-dir-empty", "mnist", {}, "{dir}/d"),
    dataset("mnist-empty-file", "mnist", {IDX: b""}),
    dataset("mnist-folder", "mnist", {IDX: folder}),
    dataset("mnist-pipe", "mnist", {IDX: fifo}),
    dataset("cifar-folder", "cifar10", {PARQUET: folder}),
    dataset("cifar-no-parquet", "cifar10", {PARQUET: "text"}),
    dataset("celeba-zero-device", "celeba", {"img_align_celeba/z.png": link("/dev/zero")}, todo=TODO, hangs=True),
]  # fmt: skip

"""Pictures and arrays for `coldtune evaluate --images`."""

from __future__ import annotations

from pathlib import Path

from bad_row import Content, Row, command, fifo, folder, link


def pictures(name: str, file: str, content: Content, *says: str, **more: object) -> Row:
    """Return a row for a folder of two such pictures, because one picture is refused for itself."""
    return command(name, "evaluate --images {dir}/p --reference digits", says or ("{dir}/p",),
                   files={f"p/{file}": content, f"p/more-{file}": content}, **more)  # fmt: skip


def array(name: str, file: str, content: Content, *says: str, **more: object) -> Row:
    """Return a row for an array file."""
    return command(name, f"evaluate --images {{dir}}/{file} --reference digits", says or (f"{{dir}}/{file}",),
                   files={file: content}, **more)  # fmt: skip


def header(shape: str, dtype: str = "|u1") -> bytes:
    """Return an .npy file that promises an array and holds nothing."""
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def loops(path: Path) -> None:
    """Make a folder whose links lead back to it."""
    folder(path)
    for name in "ab":
        link(".")(path / name)


ROWS: list[Row] = [
    command("images-missing", "evaluate --images {dir}/nosuch --reference digits", says="{dir}/nosuch"),
    command("images-empty-folder", "evaluate --images {dir} --reference digits", says="{dir}"),
    command("images-unknown-reference", "evaluate --images {dir} --reference cats", says=["cats", "digits"]),
    pictures("images-text", "a.png", "no picture", "a.png"),
    pictures("images-empty-file", "a.png", b"", "a.png"),
    pictures("images-pipe", "a.png", fifo, "a.png"),
    command("images-loops", "evaluate --images {dir}/p --reference digits", says="{dir}/p", files={"p": loops}),
    array("array-empty", "i.npy", b"", "i.npy"),
    array("array-huge-header", "i.npy", header("(1000000000, 1, 160, 1600)"), "i.npy"),
    array("array-of-text", "i.npz", "no zip", "i.npz"),
]  # fmt: skip

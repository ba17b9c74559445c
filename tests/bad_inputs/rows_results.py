"""Commands on finished trials: `coldtune grid`, `report`, `rerun`, `restore` and `export`."""

from __future__ import annotations

from pathlib import Path

from bad_row import Content, Row, command, fifo, folder, link
from PIL import Image


def picture(mode: str, size: tuple[int, int] = (16, 16), colour: object = 0, **more: object) -> Content:
    """Return a function that writes a picture at a path."""
    return lambda path: Image.new(mode, size, colour).save(path, **more)


def animation(path: Path) -> None:
    """Write an animated picture of two frames."""
    frames = [Image.new("L", (16, 16), level) for level in (0, 200)]
    frames[0].save(path, save_all=True, append_images=frames[1:])


def full(path: Path) -> None:
    """Make a folder that contains a file."""
    path.mkdir()
    (path / "mine").write_text("")


def on_trial(name: str, line: str, *says: str, **more: object) -> Row:
    """Return a row for a command on the finished study."""
    return command(name, line, says, home="study", **more)


def restore(name: str, file: str, content: Content, *says: str, **more: object) -> Row:
    """Return a row for `coldtune restore` of a file with this content."""
    line = f"restore {{study}}/0 {{dir}}/{file} -o {{dir}}/out"
    return command(name, line, [f"{{dir}}/{file}", *says], files={file: content}, home="study", data=True, **more)


ROWS: list[Row] = [
    # --- importance
    command("importance-unknown-study", "importance nosuch", ["study nosuch: not in {home} (there are: none)"]),
    # --- grid
    command("grid-unknown-study", "grid nosuch --rows T", says=["nosuch", "{home}"]),
    command("grid-two-keys", "grid nosuch --rows T --rows beta", says=["--rows beta", "single key", "T"]),
    command("grid-no-key", "grid nosuch", says=["--rows KEY", "--columns KEY"]),
    on_trial("grid-unknown-key", "grid {study} --rows beta", "--rows beta", "allowed: num_steps"),
    on_trial("grid-fixed-key", "grid {study} --columns degradation.steps", "--columns degradation.steps", "num_steps"),
    on_trial("grid-key-twice", "grid {study} --rows num_steps --columns sampler.num_steps", "--columns sampler.num_st"),
    on_trial("grid-images-gone", "grid {study} --rows num_steps", "{study}", "no longer in the store"),
    command("grid-images-text", "grid x --rows T --images many", says=["--images", "many"]),
    command("grid-images-none", "grid x --rows T --images 0", says=["--images 0", "1 to 64"]),
    command("grid-images-huge", "grid x --rows T --images 1000000", says=["--images 1000000", "64"]),
    command("grid-animate-many", "grid x --rows T --animate --images 20", says=["--images 20", "1 to 8"]),
    command("grid-output-exists", "grid x --rows T -o {dir}/g.png", says=["{dir}/g.png", "--overwrite"],
            files={"g.png": "mine"}),
    command("grid-output-folder", "grid x --rows T -o {dir} --overwrite", says=["--output", "{dir}"]),
    command("grid-output-not-png", "grid x --rows T -o {dir}/g.jpg", says=["{dir}/g.jpg", ".png"]),
    command("grid-output-nowhere", "grid x --rows T -o {dir}/a/b.png", says="{dir}/a/b.png"),
    command("grid-output-proc", "grid x --rows T -o /proc/x.png", says="/proc/x.png"),
    # --- report
    command("report-nothing", "report", says="STUDY"),
    command("report-unknown-study", "report nosuch -o {dir}/r.html", says=["nosuch", "{home}"]),
    command("report-format", "report x --format pdf", says=["--format", "pdf", "html", "json"]),
    command("report-ending", "report x -o {dir}/r.pdf", says=["{dir}/r.pdf", ".html", "--format"]),
    command("report-no-ending", "report x -o {dir}/r", says=["{dir}/r", "--format"]),
    command("report-output-exists", "report x -o {dir}/r.html", says=["{dir}/r.html", "--overwrite"],
            files={"r.html": "mine"}),
    command("report-output-folder", "report x -o {dir} --format md --overwrite", says=["--output", "{dir}"]),
    command("report-output-nowhere", "report x -o {dir}/a/r.html", says="{dir}/a/r.html"),
    command("report-output-proc", "report x -o /proc/r.html", says="/proc/r.html"),
    command("report-live-json", "report x -o {dir}/r.json --live", says=["--live", "html"]),
    on_trial("report-equal-within", "report {study} -o {dir}/r.html --equal-within -1", "--equal-within -1"),
    # --- rerun
    command("rerun-nothing", "rerun", says="RUN"),
    command("rerun-unknown", "rerun nosuch", says=["nosuch", "no such run"]),
    command("rerun-threads", "rerun x --threads 0", says=["--threads 0", "1 to"]),
    command("rerun-output-full", "rerun x -o {dir}/out", says=["{dir}/out", "empty"], files={"out": full}),
    command("rerun-output-file", "rerun x -o {dir}/out", says="{dir}/out", files={"out": ""}),
    command("rerun-output-proc", "rerun x -o /proc/x", says="/proc/x"),
    on_trial("rerun-failed", "rerun {study}/2 -o {dir}/out", "{study}/2", "boom"),
    on_trial("rerun-running", "rerun {study}/3 -o {dir}/out", "{study}/3", "has not finished"),
    on_trial("rerun-device", "rerun {study}/0 --device tpu -o {dir}/out", "--device tpu", "cpu"),
    # --- restore
    command("restore-no-images", "restore x", says="IMAGES"),
    command("restore-unknown", "restore nosuch {dir}/a.png", says=["nosuch", "no such run"],
            files={"a.png": picture("L")}),
    command("restore-missing-file", "restore x {dir}/a.png", says=["{dir}/a.png", "no such file"]),
    command("restore-empty-folder", "restore x {dir}/p -o {dir}/out", says=["{dir}/p", "no image"],
            files={"p": folder}),
    command("restore-loop", "restore x {dir}/p -o {dir}/out", says="{dir}/p", files={"p": link("p")}),
    command("restore-long-name", "restore x {dir}/{long} -o {dir}/out", says="{long}"),
    command("restore-output-full", "restore x {dir} -o {dir}/out", says=["{dir}/out", "empty"], files={"out": full}),
    command("restore-output-file", "restore x {dir} -o {dir}/out", says="{dir}/out", files={"out": ""}),
    command("restore-seed-text", "restore x {dir} --seed x", says=["--seed", "x"]),
    command("restore-seed-negative", "restore x {dir} --seed=-1", says=["--seed -1", "0 to"]),
    command("restore-seed-degraded", "restore x {dir} --seed 1 --degraded", says=["--seed", "--degraded"]),
    restore("restore-text", "a.png", "no picture"),
    restore("restore-empty-file", "a.png", b""),
    restore("restore-pipe", "a.png", fifo, "named pipe"),
    restore("restore-other-format", "a.gif", picture("L", format="GIF"), "JPEG"),
    restore("restore-animation", "a.webp", animation, "animation"),
    restore("restore-transparent", "a.png", picture("RGBA", colour=(0, 0, 0, 9)), "transparent"),
    restore("restore-16-bit", "a.png", picture("I;16"), "8 bits"),
    restore("restore-cmyk", "a.jpg", picture("CMYK"), "CMYK"),
    restore("restore-too-small", "a.png", picture("L", (7, 90)), "at least 8"),
    # --- export
    command("export-no-folder", "export x", says="DIR"),
    command("export-unknown", "export nosuch {dir}/out", says=["nosuch", "no such run"]),
    command("export-full", "export x {dir}/out", says=["{dir}/out", "empty"], files={"out": full}),
    command("export-file", "export x {dir}/out", says="{dir}/out", files={"out": ""}),
    command("export-proc", "export x /proc/x", says="/proc/x"),
    on_trial("export-failed", "export {study}/2 {dir}/out", "{study}/2", "boom"),
]  # fmt: skip

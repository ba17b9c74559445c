"""Files that coldtune wrote and reads again: truncated, empty, edited, of another study, or of another kind."""

from __future__ import annotations

from collections.abc import Callable

from bad_row import Content, Place, Row, command, folder, on_study, with_mode

TODO = "files that are read back"


def put(name: str, content: Content) -> Callable[[Place], None]:
    """Return a function that replaces a file of the study's folder."""

    def change(place: Place) -> None:
        path = place.folder / name
        path.unlink(missing_ok=True)
        if callable(content):
            content(path)
        else:
            path.write_bytes(content.encode() if isinstance(content, str) else content)

    return change


def remove(name: str) -> Callable[[Place], None]:
    """Return a function that removes a file of the study's folder."""
    return lambda place: (place.folder / name).unlink()


def cut(name: str, size: int) -> Callable[[Place], None]:
    """Return a function that keeps the first bytes of a file of the study's folder."""
    return lambda place: (place.folder / name).write_bytes((place.folder / name).read_bytes()[:size])


SPEC, START, JOURNAL = "{home}/studies/{study}/spec.yaml", "{home}/studies/{study}/start.json", "journal.log"

ROWS: list[Row] = [
    # --- spec.yaml
    on_study("spec-empty-show", put("spec.yaml", ""), "study show {study}", SPEC),
    on_study("spec-empty-resume", put("spec.yaml", ""), "study resume {study}", SPEC),
    on_study("spec-list-show", put("spec.yaml", "[1]\n"), "study show {study}", SPEC),
    on_study("spec-python-show", put("spec.yaml", "job: !!python/object/apply:os.system ['true']\n"),
             "study show {study}", [SPEC, "python/object"]),
    on_study("spec-cut-show", cut("spec.yaml", 700), "study show {study}", SPEC),
    on_study("spec-cut-resume", cut("spec.yaml", 700), "study resume {study}", SPEC),
    on_study("spec-folder-show", put("spec.yaml", folder), "study show {study}", [SPEC, "folder"]),
    on_study("spec-unreadable-show", put("spec.yaml", with_mode(0)), "study show {study}", [SPEC, "permission"],
             needs_user=True),
    # --- start.json
    on_study("start-missing-resume", remove("start.json"), "study resume {study}", START, todo=TODO),
    on_study("start-list-resume", put("start.json", "[]"), "study resume {study}", START, todo=TODO),
    on_study("start-object-show", put("start.json", "{}"), "study show {study}", START, todo=TODO),
    on_study("start-null-show", put("start.json", "null"), "study show {study}", START, todo=TODO),
    on_study("start-empty-show", put("start.json", ""), "study show {study}", START, todo=TODO),
    on_study("start-folder-show", put("start.json", folder), "study show {study}", START, todo=TODO),
    # --- the journal
    on_study("journal-missing-show", remove(JOURNAL), "study show {study}", JOURNAL, todo=TODO),
    on_study("journal-empty-show", put(JOURNAL, ""), "study show {study}", JOURNAL, todo=TODO),
    on_study("journal-folder-show", put(JOURNAL, folder), "study show {study}", JOURNAL, todo=TODO),
    # --- the store
    command("store-prefix-of-many", "store show sample/", says=["sample/", "entries start with it"], home="study",
            todo=TODO),
    command("store-unknown-entry", "store show train/000000", says="train/000000", home="study"),
    command("store-is-file", "store ls --store {dir}/file", says="{dir}/file", files={"file": ""}, home="study",
            todo=TODO),
]  # fmt: skip

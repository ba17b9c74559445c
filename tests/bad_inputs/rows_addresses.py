"""Addresses of stores, databases and tracking servers. Nothing here may wait for a network."""

from __future__ import annotations

from bad_row import Row, flag

ROWS: list[Row] = [
    flag("store-null-device", "--store=/dev/null", says="/dev/null", home="digits"),
    flag("store-proc", "--store=/proc/x", says="/proc/x", home="digits"),
    flag("store-file", "--store={dir}/file", says="{dir}/file", files={"file": ""}, home="digits"),
    flag("store-scheme", "--store=ftp://host/x", says="ftp", home="digits"),
    flag("storage-scheme", "--storage=oracle9://host/x", says="oracle9", home="digits"),
    flag("storage-join-sqlite", "--join", ["--join", "SQLite"], "--storage=sqlite:///x.db", home="digits"),
    flag("tracking-scheme", "--tracking-uri=ftp://host/x", says="ftp", home="digits"),
]  # fmt: skip

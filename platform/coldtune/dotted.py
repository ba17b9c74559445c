"""Access to nested mappings by dotted keys such as `training.steps`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def get_key(tree: Mapping[str, Any], path: str) -> Any:
    """Return the value at a dotted key. None if the key does not exist."""
    for part in path.split("."):
        if not isinstance(tree, Mapping) or part not in tree:
            return None
        tree = tree[part]
    return tree


def set_key(tree: dict[str, Any], path: str, value: Any) -> None:
    """Set the value at a dotted key, and create the sections above it if necessary.

    Raises:
        ValueError: If a part of the key above the last is a value and not a section.
    """
    *parents, last = path.split(".")
    for part in parents:
        if tree.get(part) is None:
            tree[part] = {}
        tree = tree[part]
        if not isinstance(tree, dict):
            raise ValueError(f"{path}: {part} is a value and has no keys")
    tree[last] = value


def drop_key(tree: dict[str, Any], path: str) -> None:
    """Remove a dotted key if it exists."""
    parent, _, last = path.rpartition(".")
    owner = get_key(tree, parent) if parent else tree
    if isinstance(owner, dict):
        owner.pop(last, None)


def leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted key and the value of everything in nested mappings that is not itself a mapping."""
    for key, value in tree.items():
        path = f"{prefix}.{key}" if prefix else str(key)
        if isinstance(value, Mapping):
            yield from leaves(value, path)
        else:
            yield path, value

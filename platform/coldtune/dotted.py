"""Access to nested mappings by dotted keys such as `training.steps`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def get_key(tree: Mapping[str, Any], path: str) -> Any:
    """The value at a dotted key; None where there is none."""
    for part in path.split("."):
        if not isinstance(tree, Mapping) or part not in tree:
            return None
        tree = tree[part]
    return tree


def set_key(tree: dict[str, Any], path: str, value: Any) -> None:
    """Put a value at a dotted key, making the sections on its way; ValueError where one of them is a value."""
    *parents, last = path.split(".")
    for part in parents:
        if tree.get(part) is None:
            tree[part] = {}
        tree = tree[part]
        if not isinstance(tree, dict):
            raise ValueError(f"{path}: {part} is a value, it has no keys")
    tree[last] = value


def drop_key(tree: dict[str, Any], path: str) -> None:
    """Take a dotted key out, where it is there."""
    parent, _, last = path.rpartition(".")
    owner = get_key(tree, parent) if parent else tree
    if isinstance(owner, dict):
        owner.pop(last, None)


def leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every (dotted key, value) of nested mappings."""
    for key, value in tree.items():
        path = f"{prefix}.{key}" if prefix else str(key)
        if isinstance(value, Mapping):
            yield from leaves(value, path)
        else:
            yield path, value

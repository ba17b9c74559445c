"""What a comparison of single trainings is about: networks, and not settings."""

from __future__ import annotations


def describe_networks(same: bool) -> str:
    """Return a sentence that says what a comparison of two trials compares, if each was trained once.

    Args:
        same: True if both use the same training, for example with two samplers or two averages of its weights.
    """
    if same:
        return "Both use one training, so this says nothing about other trainings."
    return "This compares two trained networks and not two settings, because each was trained once."

"""The replicates of a setting: trials that differ in their training seed alone."""

from __future__ import annotations

from coldtune.stages.trial import TrialConfig


def with_replicate(config: TrialConfig, replicate: int) -> TrialConfig:
    """Return the configuration of a replicate of a setting: the training seed is larger by the replicate's number."""
    if not replicate:
        return config
    training = config.training.model_copy(update={"seed": config.training.seed + replicate})
    return config.model_copy(update={"training": training})

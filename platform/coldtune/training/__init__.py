"""Training of a restorer in pure torch. Its wrapper for Ray Train is `coldtune.training.distributed`."""

from coldtune.training.checkpoints import FolderCheckpoints
from coldtune.training.config import TrainingConfig
from coldtune.training.loop import Checkpoints, DivergedError, Report, TrainingTask, TrainResult, train
from coldtune.training.state import load_restorer, read_history
from coldtune.training.world import World

__all__ = [
    "Checkpoints",
    "DivergedError",
    "FolderCheckpoints",
    "Report",
    "TrainResult",
    "TrainingConfig",
    "TrainingTask",
    "World",
    "load_restorer",
    "read_history",
    "train",
]

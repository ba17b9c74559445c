"""train -> sample -> measure, each keyed by what determined it, and the store that remembers them."""

from coldtune.stages.store import Entry, Store, StoreCache, StoreCheckpoints
from coldtune.stages.trial import TrialConfig

__all__ = ["Entry", "Store", "StoreCache", "StoreCheckpoints", "TrialConfig"]

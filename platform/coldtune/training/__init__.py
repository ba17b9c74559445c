"""Training a restorer: `loop` (pure torch, one process or a process group) and `distributed` (Ray Train around it)."""

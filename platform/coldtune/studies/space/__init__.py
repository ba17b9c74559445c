"""The search space: its configuration, points, distributions and validation."""

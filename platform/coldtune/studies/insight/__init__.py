"""The lessons of a study: the importance of its keys, and health checks of its results."""

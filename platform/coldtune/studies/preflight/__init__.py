"""The options of a run, and every check that happens before anything is spent."""

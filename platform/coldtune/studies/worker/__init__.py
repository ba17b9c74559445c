"""Code that runs in a trial's own process."""

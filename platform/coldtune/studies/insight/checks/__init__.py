"""The health checks: a file for each check."""

"""Optuna's storage of a study: its backends, the adapter to Optuna's private API, and the stored records."""

"""Optuna storage: journal and database backends, retries, and the records that a study and its trials keep."""

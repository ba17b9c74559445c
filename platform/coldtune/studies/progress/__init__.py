"""Output for people while a study runs and when it ends: terminal, tables, MLflow runs and gauges."""

"""What a study leaves for people to look at: pictures and tables. Imports neither Ray nor MLflow nor Optuna."""

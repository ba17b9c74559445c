"""Pictures, tables and pages about studies. Nothing in this folder imports Ray, MLflow or Optuna."""

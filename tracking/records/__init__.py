"""Records: frozen values, written to JSON at the edge of Optuna and MLflow."""

"""MLflow: runs, models, versions and views, and a client that reads without importing MLflow."""

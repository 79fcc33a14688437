"""Recording of finished trials in the outbox and in MLflow."""

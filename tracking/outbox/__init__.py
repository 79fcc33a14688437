"""Outbox: finished trials on disk until MLflow has taken them."""

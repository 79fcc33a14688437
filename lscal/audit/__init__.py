"""Audit: `python -m lscal.audit predictions.parquet` says of any model's saved predictions how far its
confidence can be trusted.
"""

GENERATOR = "lscal.audit"
"""What a page says it was written by; only such a file is replaced."""

"""Audit: `python -m lscal.audit predictions.parquet` measures, from any model's saved predictions, how far
its confidence can be trusted.
"""

GENERATOR = "lscal.audit"
"""Generator named in a page; only such a file is replaced."""

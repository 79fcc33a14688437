"""Data: data sets, their splits, and readers of user-supplied data."""

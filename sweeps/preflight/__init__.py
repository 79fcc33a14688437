"""Preflight checks of data and networks."""

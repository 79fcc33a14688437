"""Experiments to read and to run: each is one command, and writes its own page."""

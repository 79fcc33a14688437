"""Commands: what the doors `python -m sweeps.NAME` run."""

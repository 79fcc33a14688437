"""Studies: the state of a sweep in the Optuna database."""

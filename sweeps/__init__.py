"""sweeps: find the label-smoothing mass ε of a task. `python -m sweeps.run` is the way in."""

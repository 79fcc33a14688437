"""Training: populations of members in one pass, their loss, optimiser and checkpoints."""

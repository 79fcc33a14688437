"""Decision: from paired outcomes to a recommended ε."""

"""Protocol of a sweep: pilot, screening, confirmation, decision, publication."""

"""Programs for hardware that is not here: compiled, and read."""

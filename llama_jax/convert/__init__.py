"""Other libraries' layouts of the same parameters."""

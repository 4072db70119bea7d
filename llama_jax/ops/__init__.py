"""Pure functions on arrays; they own no parameters."""

"""The command line: one file a command, and the only readers of argv and environment."""

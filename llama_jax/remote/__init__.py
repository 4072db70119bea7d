"""Buckets: objects, folders that are mirrored there, and who writes to one."""

"""Stages: one file a stage between documents and shards."""

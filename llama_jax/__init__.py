"""Pretrains LLaMA models with JAX, from a laptop to TPU and GPU pods."""

__version__ = "0.1.0"

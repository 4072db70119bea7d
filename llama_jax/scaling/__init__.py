"""Scaling laws: published ones, fits to new runs, and plans made from them."""

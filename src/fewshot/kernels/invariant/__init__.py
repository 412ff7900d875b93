"""Kernels of generation, whose result for a row depends on that row alone: linear layers and paged attention."""

"""Metrics: what answers are worth. A file a family, as each set's official script defines it."""

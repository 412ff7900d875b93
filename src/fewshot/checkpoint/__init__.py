"""Layer 7: weights and training state on disk, verified by sha256."""

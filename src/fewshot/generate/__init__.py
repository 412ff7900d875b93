"""Layer 8: text out of a model. Knows nothing of training."""

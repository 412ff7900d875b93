"""Layer 9: evaluation of in-context learning as in the paper: zero, one and few shots, no gradient updates."""

"""Floor 9: in-context learning measured as the paper does: zero, one and few shots, no gradient updates."""

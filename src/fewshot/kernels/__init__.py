"""Layer 5: how attention is computed. Every kernel equals `reference`."""

"""Layer 2: text in, token ids out, and back without loss."""

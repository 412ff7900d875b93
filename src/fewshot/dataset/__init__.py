"""Layer 3: documents in, batches of tokens out, in an order that is a pure function of (seed, step)."""

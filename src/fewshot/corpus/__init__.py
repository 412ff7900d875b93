"""Layer 1: raw text in, `Document` out."""

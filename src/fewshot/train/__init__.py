"""Layer 8: the paper's training recipe. Knows nothing of generation or evaluation."""

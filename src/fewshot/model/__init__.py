"""Layer 6: the GPT family: tokens in, logits, log-probabilities and loss out."""

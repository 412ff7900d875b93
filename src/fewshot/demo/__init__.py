"""Layer 11: from text to a report, on text that every machine has: what is trained and what must come out."""

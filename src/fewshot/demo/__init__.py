"""The whole river on text that every machine has: what is read, what is trained, and what must come out."""

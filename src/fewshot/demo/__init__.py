"""The whole way from text to a report, on text that every machine has: what is trained and what must come out."""

"""Layer 11: published findings as files that anyone can rerun: what was claimed, what to run, what must come out."""

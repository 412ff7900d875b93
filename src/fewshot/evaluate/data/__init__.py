"""Files of evaluation sets: found, read, checked and split."""

"""Files of evaluation sets: finding, reading, checking and splitting them."""

"""Layer 0, under all others: errors, files, configuration values, progress, random keys."""

"""Pages of results: of one run, of several runs, of contamination."""

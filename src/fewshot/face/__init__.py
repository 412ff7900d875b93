"""For those who write Python: a run that is loaded once, writes, is evaluated, trained and exported."""

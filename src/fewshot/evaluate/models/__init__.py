"""Language models that can be evaluated: what evaluation asks of one, and who answers."""

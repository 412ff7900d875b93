"""Layer 9, beside `evaluate`: instruments that look inside a model. In: a model and tokens. Out: numbers and a page."""

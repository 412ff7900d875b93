"""Metrics of answers: a file for each family, as the sets' official scripts define them."""

"""Learners: in weights, in context, and the rules of statistics that they are held against."""

"""A file for each family of tasks; `table.py` joins their rows."""

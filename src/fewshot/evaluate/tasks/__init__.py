"""One file a family of tasks; `table.py` joins their rows."""

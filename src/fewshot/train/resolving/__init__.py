"""From what a user gives to a whole configuration of a run: layers of values, recipes, what is chosen and why."""

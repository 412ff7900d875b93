"""What a run writes of its steps, and how that is checked."""

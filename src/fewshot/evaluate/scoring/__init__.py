"""From prompts to answers: log-probabilities of completions, and text that a model writes."""

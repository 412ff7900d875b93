"""What an evaluation leaves on disk: results, answers as they come, evidence of contamination."""

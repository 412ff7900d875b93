"""The completions API over HTTP."""

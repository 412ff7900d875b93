"""Layer 12: parses, wires and prints; holds no logic. One short file a command."""

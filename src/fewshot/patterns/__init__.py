"""Layer 4: who may read whom, as values. Knows no tensor and no kernel."""

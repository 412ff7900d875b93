"""Layer 10: learning to learn: an inner loop on each task's support set, an outer loop on its query set."""

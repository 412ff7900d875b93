"""Layer 11: measured against peers, interleaved in one run, as ratios. Peers are imported only here."""

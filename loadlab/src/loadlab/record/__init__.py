"""Stored load runs: their form (`schema`), histograms, what the kernel counts, writing, reading."""

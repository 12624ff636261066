"""Stored load runs: their form (`form`), histograms on disk (`packed`), writing (`write`) and
reading (`read`)."""

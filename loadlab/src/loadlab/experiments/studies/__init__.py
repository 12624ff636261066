"""Studies: several load runs that together answer one question, stored row by row, and shown in
docs/benchmarks.md."""

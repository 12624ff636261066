"""The sections of docs/benchmarks.md and README, written from stored runs only."""

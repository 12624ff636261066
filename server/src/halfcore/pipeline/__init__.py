"""Bytes to rows to batches to results to bytes: `decode` (fast), `explain` (says what is wrong),
`batcher`, `engine`, `encode`."""

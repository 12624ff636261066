"""From a body's bytes to an answer's bytes: `decode` (fast), `explain` (says what is wrong),
`batcher`, `engine`, `encode`."""

"""Between JSON and rows: `decode` (the fast way), `careful` (the way that explains), `encode`."""

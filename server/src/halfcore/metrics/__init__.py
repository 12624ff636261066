"""The server's counters, and their text for Prometheus, over all workers."""

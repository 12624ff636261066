"""The process around a worker: granian in this process or in several, sized to the host's limits,
and drained at the end."""

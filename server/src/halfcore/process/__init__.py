"""The process around a worker: granian in this process or in several, sized to the limits it finds,
and drained at the end."""

"""`loadlab search`: the least CPU and memory with which a number of users pass, three times of
three."""

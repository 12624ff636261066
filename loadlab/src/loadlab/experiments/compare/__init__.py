"""`loadlab compare`: halfcore and a baseline in the same tier, in blocks of random order, through
the load run's own rules."""

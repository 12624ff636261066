"""Says how many users a server carries in which limits, with rules that a critical reader
accepts."""

"""Every setting of the server: one frozen object, read once from the environment and the command
line.

Only `__main__`, `process` and `worker` see `Settings`; below them functions take plain keyword
arguments with units.
"""

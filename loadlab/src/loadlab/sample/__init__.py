"""Looks at the kernel's counters several times a second while a run lasts: server, machine,
network, processes."""

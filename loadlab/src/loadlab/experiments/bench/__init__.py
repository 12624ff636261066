"""`loadlab bench` and `loadlab ablate`: CPU time per request of several servers, side by side in
one run."""

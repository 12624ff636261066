"""Follows models in an MLflow registry: finds the bundle of the version that an alias, a stage or a
number names, and swaps it in.

Theory of operation. One `Follower` per followed model polls the registry (`client`, `resolve`).
When it names another bundle than the one that serves, the follower fetches it to a temporary place
(`fetch`), has a process of its own try it (`sandbox`), renames it into the `store`, loads it in a
thread, and hands the loaded model over: one pointer, on the event loop. Whatever goes wrong before
that leaves the served model alone and is told in `Status`. Nothing here is on a request's path.
"""

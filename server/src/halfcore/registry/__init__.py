"""Follows models in an MLflow registry: finds the bundle of the version that an alias, a stage or a
number names, and takes it into service.

Theory of operation. One `Follower` per followed model polls the registry (`client`, `resolve`).
When the registry names another bundle than the served one, the `Swapper` downloads it to a
temporary folder (`fetch`), tries it in another process (`sandbox`), renames it into the `store`,
loads it in a thread, and delivers the loaded model: it changes one pointer, on the event loop. An
error before that leaves the served model as it is, and the `Reporter` shows it in `Status`.
Nothing here is on a request's path.
"""

"""Deterministic simulation: real parts of the server on an event loop whose order and time come
from a seed. A schedule that fails is found by its seed again."""

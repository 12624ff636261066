"""Finds out what a model takes and answers, its parts, and which rows to prove it with."""

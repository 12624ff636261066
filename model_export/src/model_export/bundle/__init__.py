"""Puts a bundle on disk."""

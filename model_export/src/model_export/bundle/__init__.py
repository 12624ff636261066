"""Writes a bundle to the disk."""

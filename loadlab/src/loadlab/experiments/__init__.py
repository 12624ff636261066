"""Experiments: several runs that together answer one question, stored cell by cell."""

"""Carrying out a load run: what was asked (`arguments`), the phases (`conduct`), what is written
meanwhile (`book`), repeats and the end (`session`)."""

"""Carrying out a load run: what was asked (`order`), repeats and the end (`session`), the phases
(`phases`), and what is written meanwhile (`timeline`)."""

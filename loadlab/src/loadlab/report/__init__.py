"""Showing runs: the live line (`live`), the table at the end (`table`), the page and its plots
(`page`, `plots`), Markdown (`markdown`)."""

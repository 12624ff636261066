"""One run for readers: the live line (`live`), the table at the end (`table`), the page with its
pictures and the Markdown (`page`), and the commands of stored runs (`command`)."""

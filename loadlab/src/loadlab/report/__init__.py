"""One run for readers: on a terminal (`terminal`), as a page and Markdown with pictures (`page`),
and the commands of stored runs (`command`)."""

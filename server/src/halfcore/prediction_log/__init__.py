"""The prediction log: every answered request becomes one row in PostgreSQL, and no request waits
for it.

Theory of operation. A request appends one entry to a list (`PredictionLog.add`). Four times a
second a task turns the list into *blocks*: consecutive numbered rows, encoded for PostgreSQL's
binary COPY (`blocks`). Blocks are written to the database in one transaction (`store`) or, while it
cannot be reached, to segment files (`spool`), from which they are replayed in order. Once something
is spooled, everything goes through the spool until the spool is empty.

Exactly once. Rows are numbered per *writer*, which is one run of one worker process. The
transaction that copies rows also moves the writer's mark in `prediction_log_offsets`; rows below
the mark are skipped. So a block may be written any number of times: after a lost acknowledgement,
after a crash between commit and the segment's deletion, by another process that adopted the
segment.

What is accepted is kept; what does not fit is refused by `add` and counted.
"""

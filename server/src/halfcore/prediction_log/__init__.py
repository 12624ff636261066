"""What was predicted, in PostgreSQL: every answered request becomes one row, and no request waits
for it.

Theory of operation. A request appends one tuple to a list (`PredictionLog.add`). Four times a
second a task turns the list into *blocks*: runs of numbered rows, laid out as PostgreSQL's binary
COPY wants them (`blocks`). Blocks go to the database in one transaction (`store`) or, while it is
away, to segment files (`spool`), from which they are replayed in order. Once something is spooled,
everything goes through the spool until it is empty.

Exactly once. Rows are numbered per *writer*, which is one run of one worker process. The
transaction that copies rows also moves the writer's mark in `prediction_log_offsets`; rows below
the mark are passed over. So a block may be offered as often as one likes: after a lost
acknowledgement, after a crash between commit and the segment's deletion, by another process that
adopted the segment.

What is accepted is kept; what does not fit is refused at the door (`add`) and counted.
"""

"""A load client cheap enough to share a machine with what it measures: one process, one epoll loop,
requests prepared as bytes.

`python -m loadlab.generator.epoll --help`. It connects to loopback only, ends by itself,
and checks every answer. Two regimes:

- `saturated`: each connection sends its next request as soon as the answer has arrived. For CPU
  time per request.
- `sparse`: each connection has a timetable (start + think + think …). Latency counts from the
  timetable, not from the sending: a late answer delays nothing in the timetable and
  hides nothing (no coordinated omission).
"""

"""The feature catalogue: what the data team says about a model's columns, in a table of PostgreSQL
(docs/catalogue.md).

Theory of operation: `follower` reads the served models' rows, after each notification of a change
and also periodically. `entries` checks each model's rows and turns them into rules for its columns.
`state` holds what was accepted and gives each model a decoder with those rules, by replacing its
`LoadedModel` by a new one. `snapshot` keeps the last good catalogue on disk. A request sees only
the decoder: it waits for nothing here, and a model without rows has the decoder that it would have
without a catalogue.
"""

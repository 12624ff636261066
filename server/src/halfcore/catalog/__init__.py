"""The feature catalogue: what the data team says of a model's columns, in a table of PostgreSQL
(docs/catalogue.md).

Theory of operation: `follow` reads the served models' rows, when told of a change and every so
often without being told. `entries` checks each model's rows and turns them into rules for its
columns. `state` holds what was accepted and gives each model a decoder with those rules, by putting
a new `LoadedModel` in the place of the old one. `snapshot` keeps the last good catalogue on disk. A
request sees only the decoder: it waits for nothing here, and a model without rows has the decoder
that it would have without a catalogue.
"""

"""Judging runs: `figures` are taken from the record, `rules` say what they prove, `objective`
whether the server was good enough.

A PASS needs all 17 rules. A FAIL needs those that clear the generator and the machine: a server
that misses its objective may well break the others (nothing is steady under overload). Everything
else is INVALID: it proves nothing, neither way.
"""

"""The models of `just prove-models`: how each is trained and logged, and how its answers are
compared over HTTP."""

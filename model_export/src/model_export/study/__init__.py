"""What a model takes and answers, what it is made of, and rows to prove it with."""

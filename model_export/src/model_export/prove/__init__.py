"""The proof that the graph's answers are the registered model's."""

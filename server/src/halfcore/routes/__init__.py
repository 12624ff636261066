"""What the server answers: predictions, models, health, metrics, documentation."""

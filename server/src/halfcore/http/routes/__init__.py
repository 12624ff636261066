"""The app's routes: predictions, models, health, metrics, administration, documentation."""

"""The served models: loads bundles, and holds the pointer to the version that answers now."""

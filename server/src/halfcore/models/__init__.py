"""The served models: how a bundle is loaded, and the pointer to the version that answers now."""

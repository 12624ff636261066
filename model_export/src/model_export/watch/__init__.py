"""A service that exports every new version of the chosen models, and tags each with the result."""

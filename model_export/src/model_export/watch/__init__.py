"""A service that exports every new version of the chosen models, and says in the registry what came
of it."""

"""What makes the load: Locust's master and workers, or the raw engine; each in processes of its
own, driven through a `Load` and files."""

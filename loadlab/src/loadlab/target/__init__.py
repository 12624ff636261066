"""Who starts the server under load: the lab, as processes in control groups (`cgroup`) or as
containers (`compose`), or the user (`given`)."""

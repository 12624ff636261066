"""Where the server under load comes from: processes in control groups (`cgroup`), containers
(`compose`), or somebody else (`given`)."""

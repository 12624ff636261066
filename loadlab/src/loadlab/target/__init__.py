"""What is under load: processes in control groups, containers, or a server that runs already."""

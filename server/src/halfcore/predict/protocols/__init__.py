"""The protocols of other model servers: each turns a request into rows, and results into its own
answer. Everything between is the same as for `POST /predict`."""

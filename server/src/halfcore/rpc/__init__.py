"""The inference protocol over gRPC, on a port of its own: calls in and out. Imported only if
`grpc_port` is set."""

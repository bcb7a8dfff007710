"""Use cases, one noun a module: plain values in and out, nothing of gRPC or protobuf."""

"""The gRPC surface: servicers that read a call, ask a service and answer, and what stands around them."""

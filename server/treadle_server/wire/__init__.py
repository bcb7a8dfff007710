"""The only place that turns domain values into protobuf and back."""

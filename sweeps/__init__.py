"""The shipped sweeps: YAML only, read by name (`pinch run demo`)."""

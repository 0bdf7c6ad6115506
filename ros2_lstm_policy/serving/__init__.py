"""A policy behind a port: for benchmarks of others, and for the policy node on another machine."""

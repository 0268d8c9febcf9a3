"""Peers of the benchmarks, each run in an environment of its own."""

"""Benchmarks: each is timed against a named peer in the same run, never as a bare time."""

"""Measurement: utility, leakage and cost of the executable that ships, each number with its provenance."""

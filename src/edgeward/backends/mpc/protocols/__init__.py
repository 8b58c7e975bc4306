"""Protocols on shared values: each with its demands, its declared cost, and the semantics it must equal."""

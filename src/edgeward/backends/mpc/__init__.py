"""Two-party secure inference: ring semantics, one-time material, protocols and their channel. Unaudited."""

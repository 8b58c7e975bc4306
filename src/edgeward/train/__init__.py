"""Floor 2: one training loop for one model or many at once."""

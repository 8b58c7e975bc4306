"""Floor 2: a quantised graph becomes plain C11, with an integer reference that gives the same bits."""

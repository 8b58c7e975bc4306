"""edgeward."""

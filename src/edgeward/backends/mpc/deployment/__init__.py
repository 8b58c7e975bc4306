"""Real parties in processes of their own: dealer, server, client, and how they stop together."""

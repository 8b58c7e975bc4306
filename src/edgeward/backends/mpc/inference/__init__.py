"""Networks on secret input: lowering to a public plan of protocols, its declared cost, and sessions that run it."""

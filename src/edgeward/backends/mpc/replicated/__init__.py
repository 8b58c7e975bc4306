"""Three parties, each holding two of three shares: no dealer, and any two of them would know everything."""

"""Cleartext backends: the whole network in one file, run by one party."""

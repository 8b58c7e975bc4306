"""How parties reach each other: streams, mutual TLS, frames, channels, meters, and who they must prove to be."""

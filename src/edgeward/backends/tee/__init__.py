"""Split deployments: one part of a network in the normal world, one behind the door of a secure world."""

"""A client's connection: the edge where it comes in, its handshake, and its actor."""

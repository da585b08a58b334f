"""A channel: what a client's methods mean, and what it has published, holds and settles."""

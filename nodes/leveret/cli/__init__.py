"""The `leveret` command: what an operator types, and what it prints."""

"""A node as a whole: its configuration, its log, and the root where everything is put together."""

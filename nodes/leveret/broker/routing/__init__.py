"""Which queues a message goes to: the exchange types and the walk over exchange bindings. Pure."""

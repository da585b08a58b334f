"""The broker: connections, channels, exchanges and queues as actors, over replicated logs."""

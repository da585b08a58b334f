"""What operators set for queues and exchanges by patterns over their names."""

"""A queue: its replicated state, the machine that changes it, and the actor that leads it."""

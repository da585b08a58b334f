"""What goes wrong in a real cluster: faults as pairs of an injection and its healing."""

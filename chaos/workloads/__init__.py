"""Clients of a real cluster, which write down what they saw; they judge nothing."""

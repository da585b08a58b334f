"""Judges of a history: pure functions from its events to complaints about broken promises."""

"""Finding out whether Leveret keeps its promises: faults, histories, checkers. Not shipped."""

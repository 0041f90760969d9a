"""Is this answer correct? Checkers of single answers and the worker processes that bound them
(stage 7, and the evaluation).

`verdicts` is the vocabulary, `checks` decides one answer, `pool` runs many with a hard limit of
time and memory each. Imports nothing of the package's other parts; importing it imports nothing
heavy.
"""

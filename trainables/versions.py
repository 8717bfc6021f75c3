"""The keyed version of each kind of result; raise one when the same inputs would give another result."""

FINE_TUNE = 1
SELECTION = 1
GENERATION = 1
JUDGING = 1

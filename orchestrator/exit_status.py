"""How the command ends, as it tells the shell; `pinch submit` reads the same of the job it follows."""

from enum import IntEnum


class ExitStatus(IntEnum):
    DONE = 0
    """Or readable, or well: what was asked for is so."""
    SOME_FAILED = 1
    """Steps have no result, or files do not hold."""
    BAD_INPUT = 2
    ENVIRONMENT = 3
    """This machine or a service cannot do it; or an error in Pinch."""
    INTERRUPTED = 130

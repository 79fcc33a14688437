"""Exits: the one table of exit codes, of every command."""

from enum import IntEnum


class Exit(IntEnum):
    """What a command says to the shell.

    Attributes:
        DONE: it did what was asked. `tracking.serve` ends so on Ctrl-C too: that is how a server is ended.
        FAILED: the input was right, and yet it did not work: a store is away or cannot be read, a training
            failed, something is left to send.
        WRONG_INPUT: what the person typed cannot be followed: a flag, task, policy, version, file or address.
            argparse ends with 2 as well.
        GATE: reserved for a check that was passed on to a pipeline and says no.
        INTERRUPTED: Ctrl-C or SIGTERM, 128 + 2 as shells count; what was finished is kept.
    """

    DONE = 0
    FAILED = 1
    WRONG_INPUT = 2
    GATE = 3
    INTERRUPTED = 130

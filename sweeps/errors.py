"""Errors that a command prints without a traceback: WrongInput, which a person can cause (exit code 2), and
Failed (1).
"""

from collections.abc import Iterable
from difflib import get_close_matches


class WrongInput(ValueError):
    """What came, what is allowed, and what to do, in words for the person who typed it."""


def unknown(kind: str, name: str, known: Iterable[str]) -> WrongInput:
    """The error for a name that does not exist, with the nearest ones that do."""
    names = sorted(known)
    near = get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(repr(n) for n in near)}?" if near else ""
    return WrongInput(f"no {kind} named {name!r}.{hint} There are: {', '.join(names)}.")


class Failed(RuntimeError):
    """What went wrong although the input was right: a store that stays away, a device without memory, workers
    that were given up.
    """

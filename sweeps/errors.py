"""Errors that a command prints without a traceback: WrongInput, caused by the user (exit code 2), and Failed
(1).
"""

from collections.abc import Iterable
from difflib import get_close_matches


class WrongInput(ValueError):
    """The value, the allowed values and the remedy, in words for the user."""


def unknown(kind: str, name: str, known: Iterable[str]) -> WrongInput:
    """Error for an unknown name, with the nearest known ones."""
    names = sorted(known)
    near = get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(repr(n) for n in near)}?" if near else ""
    return WrongInput(f"no {kind} named {name!r}.{hint} There are: {', '.join(names)}.")


class Failed(RuntimeError):
    """A failure on right input: a store that stays away, a device without memory, no workers left."""

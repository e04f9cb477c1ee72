"""The exception for errors that a user can correct, and the hint at the end of its messages."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """What the user asked for cannot be done; the message says what is wrong, where, and what to do instead.

    The command line prints the message as one line on standard error and ends with exit code 2.
    """


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of an error message that asks whether the nearest known name was meant; empty if none is near."""
    lowered = {candidate.lower(): candidate for candidate in known}
    found = difflib.get_close_matches(name.lower(), lowered, n=1)
    return f" Did you mean '{lowered[found[0]]}'?" if found else ""

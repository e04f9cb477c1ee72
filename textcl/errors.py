"""The one exception that textcl raises for what a user can put right, and the hint that its messages end with."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Something that was asked for cannot be done; the message says what, where, and what to do instead.

    The command line prints the message as one line on standard error and ends with exit code 2.
    """


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of an error message, asking whether the nearest known name was meant; empty where none is near."""
    lowered = {candidate.lower(): candidate for candidate in known}
    found = difflib.get_close_matches(name.lower(), lowered, n=1)
    return f" Did you mean '{lowered[found[0]]}'?" if found else ""

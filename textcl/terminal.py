"""Text of users as a terminal may show it: characters that would control the terminal are replaced."""

import re

# Control characters (ESC among them, and the C1 codes), embeddings and overrides of direction, halves of surrogate
# pairs. Line breaks and tabs stay.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """Replaces characters that control a terminal, or that HTML must not contain, by U+FFFD.

    Everything that textcl prints goes through this function: results, tables, errors, log messages, file names.

    Example:
        >>> printable("a\\x1b[31mb\\u202e")
        'a�[31mb�'
    """
    return _CONTROL.sub("\ufffd", text)


def json_escaped(text: str) -> str:
    """JSON with those characters written as escapes such as \\u009b, so that nothing of a value is lost."""
    return _CONTROL.sub(lambda sign: f"\\u{ord(sign[0]):04x}", text)

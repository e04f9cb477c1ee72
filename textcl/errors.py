"""The one exception that textcl raises for what a user can put right."""


class InputError(ValueError):
    """Something that was asked for cannot be done; the message says what, where, and what to do instead.

    The command line prints the message as one line on standard error and ends with exit code 2.
    """

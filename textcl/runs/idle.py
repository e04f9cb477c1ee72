"""Options of a method that were given, but change nothing without another option."""

import inspect
import logging
from collections.abc import Mapping
from typing import Any

from textcl.methods import Method
from textcl.runs.flags import as_arguments

logger = logging.getLogger("textcl")


def warn_of_idle(method: type[Method], flags: Mapping[str, Any]) -> None:
    """Warns of each option that is not at its default and misses the option that it needs.

    It is no error: a recipe may set such an option, and a flag may then turn off the one that it needs.

    Args:
        method: The class of the method; its `option_needs` says which options need another one.
        flags: The value of each option of the method.
    """
    defaults = {name: each.default for name, each in inspect.signature(method).parameters.items()}
    for option, needed in method.option_needs.items():
        given, alternatives = flags[option], [each.partition("=") for each in needed]
        if given != defaults[option] and not any(_is_on(flags[name], value) for name, _, value in alternatives):
            named = " or ".join(f"--{name.replace('_', '-')} {value}".strip() for name, _, value in alternatives)
            (flag,) = as_arguments({option: given})
            logger.warning("%s changes nothing, because it needs %s.", flag.replace("=", " ", 1), named)


def _is_on(given: Any, value: str) -> bool:
    return given == value if value else bool(given)

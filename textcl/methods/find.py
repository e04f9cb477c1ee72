"""From the name of a method to its class: one of `METHODS`, or an own one as package.module:ClassName."""

import inspect
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from textcl.errors import InputError, nearest
from textcl.methods import METHODS
from textcl.methods.method import Method


def is_own(name: str) -> bool:
    """Whether a name means an own method, package.module:ClassName. Finding it runs the code of its module."""
    return ":" in name


def find_method(name: str) -> type[Method]:
    """The method of that name.

    Args:
        name: A key of `METHODS`, or package.module:ClassName. That module is imported, also from the current folder.

    Raises:
        InputError: If there is no such method, module or class, or the class is not a `Method`.

    Example:
        >>> find_method("simcse").__name__, find_method("textcl.methods.moco:MoCo").__name__
        ('SimCSE', 'MoCo')
    """
    if not is_own(name):
        if name not in METHODS:
            raise InputError(
                f"There is no method {name!r}.{nearest(name, METHODS)} There are: {', '.join(METHODS)}; "
                "package.module:ClassName names an own one."
            )
        return METHODS[name]
    module, _, attribute = name.partition(":")
    if not attribute.isidentifier() or not all(part.isidentifier() for part in module.split(".")):
        raise InputError(f"An own method is named as package.module:ClassName, such as mymethods:MyMethod, not {name}.")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found = getattr(import_module(module), attribute, None)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # the module is there, and what it imports is not
        raise InputError(
            f"There is no module {error.name}, neither in {here} nor installed, so that {name} cannot be trained; "
            "run textcl in the folder that holds the module."
        ) from None
    if found is None:
        raise InputError(f"{module} has no class {attribute!r}.{nearest(attribute, vars(sys.modules[module]))}")
    if not _is_method(found):
        raise InputError(f"{name} is not a method: it must be a subclass of textcl.methods.Method.")
    return found


def imported_method(name: str) -> type[Method] | None:
    """The method of that name, or None where finding it would run code that this process has not run yet."""
    if not is_own(name):
        return METHODS.get(name)
    module, _, attribute = name.partition(":")
    found = getattr(sys.modules.get(module), attribute, None)
    return found if _is_method(found) else None


def _is_method(found: Any) -> bool:
    return inspect.isclass(found) and issubclass(found, Method)

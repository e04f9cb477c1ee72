"""The methods, by the name that the command line and recipes use."""

from textcl.methods.method import Method
from textcl.methods.simcse import SimCSE

METHODS: dict[str, type[Method]] = {"simcse": SimCSE}

__all__ = ["METHODS", "Method", "SimCSE"]

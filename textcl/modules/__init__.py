"""The modules that methods are made of, with their parameters and state."""

from textcl.modules.info_nce import InfoNCE

__all__ = ["InfoNCE"]

"""What methods compose, and what carries state."""

from textcl.modules.info_nce import InfoNCE

__all__ = ["InfoNCE"]

"""Losses: functions that take tensors and return a scalar."""

from textcl.losses.info_nce import info_nce, nt_xent

__all__ = ["info_nce", "nt_xent"]

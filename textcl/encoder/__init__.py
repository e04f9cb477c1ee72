"""Encoder: a transformer backbone and a pooling; texts or token rows in, one vector each out."""

from textcl.encoder.encoder import Encoder

__all__ = ["Encoder"]

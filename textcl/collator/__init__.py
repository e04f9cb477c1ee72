"""Collators: they turn dataset rows into one flat batch of token tensors."""

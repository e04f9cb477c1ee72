"""Rows of a dataset become one flat batch of token tensors."""

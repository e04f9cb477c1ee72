"""Projection heads: what stands between the encoder and the loss in training, and is left out of the export."""

from torch import nn


def projection_head(dimension: int, output_dimension: int, hidden_dimension: int | None = None) -> nn.Sequential:
    """Linear, ReLU, Linear; (rows, dim) to (rows, output dim).

    SimCLR (Chen et al. 2020, arXiv 2002.05709, section 4.2) has it between representation and loss; CLEAR and SCCL
    took it over.

    Args:
        dimension: Of the embeddings.
        output_dimension: Of what the loss compares.
        hidden_dimension: Default: `dimension`.
    """
    hidden = hidden_dimension or dimension
    return nn.Sequential(nn.Linear(dimension, hidden), nn.ReLU(), nn.Linear(hidden, output_dimension))

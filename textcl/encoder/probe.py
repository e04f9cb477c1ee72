"""What a backbone and its tokenizer are asked once, when they have been loaded, so that no corpus stops in the middle.

Two texts go through the code that will be used: a short one alone, the same one padded beside a longer one, and one of
the largest length. Whatever the backbone raises becomes one sentence. An error of textcl's own code stays as it is.
"""

import logging
from contextlib import suppress
from pathlib import Path
from traceback import extract_tb
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from textcl.dropout import evaluation_copy
from textcl.encoder.backbone import input_table
from textcl.encoder.batching import row_lengths
from textcl.encoder.forward import embed_slice
from textcl.encoder.pooling import check_pooling
from textcl.encoder.static import StaticBackbone
from textcl.errors import InputError
from textcl.tokenising import SAMPLES, pad, special_edges, token_ids, vocabulary_size, whole_ids

if TYPE_CHECKING:
    from textcl.encoder.encoder import Encoder

logger = logging.getLogger("textcl")

# What backbones raise if they do not suit. Memory that runs out is not among them.
_ERRORS = (
    RuntimeError,
    ValueError,
    IndexError,
    TypeError,
    KeyError,
    AttributeError,
    NotImplementedError,
    AssertionError,
)
_OWN = str(Path(__file__).parents[1])


def probe(encoder: "Encoder") -> None:
    """Tries a newly loaded encoder on a short text and on one of the largest length.

    A warning is logged if a text's vector depends on the texts beside it, as the architecture of some backbones has it.

    Raises:
        InputError: If the tokenizer does not fit the backbone, or the backbone cannot embed one of the texts.
    """
    check_vocabulary(encoder.backbone, encoder.tokenizer, encoder.name)
    name = f"{encoder.name} ({type(encoder.backbone).__name__})"
    if not isinstance(getattr(encoder.backbone.config, "hidden_size", None), int):
        raise InputError(f"{name} cannot be used as an encoder: its configuration has no hidden_size.")
    texts = ["the cat", "1 2, the cat: a cat, 1 2, the cat; a cat sleeps"]
    rows = [_with_mask_token(encoder, row) for row in token_ids(encoder.tokenizer, texts, encoder.max_length)]
    what = f"{name} cannot be used as an encoder"
    if getattr(encoder.backbone.config, "is_encoder_decoder", False):
        what = f"{name} is an encoder–decoder model, and transformers cannot load its encoder alone"
    alone = _tried(encoder, encoder.backbone, rows[:1], what)
    padded = _tried(encoder, encoder.backbone, rows, f"{name} cannot embed padded texts")
    trained = _tried(encoder, encoder.backbone, rows, f"{name} cannot be trained", training=True)
    if not torch.isfinite(padded).all():
        raise InputError(f"{name} gives vectors that are not finite; its weights are damaged, or need another dtype.")
    tolerance = (1e-3 if encoder.backbone.dtype == torch.float32 else 0.1) * max(float(alone.abs().max()), 1e-6)
    if float((trained - padded).abs().max()) > tolerance:
        raise InputError(f"{name} gives other vectors in training than in encoding, dropout aside.")
    if float((padded[:1] - alone).abs().max()) > tolerance:
        logger.warning("With %s the vector of a text depends on the length of the texts beside it.", name)
    if not isinstance(encoder.backbone, StaticBackbone):  # which has no positions
        _try_longest(encoder, name)


def check_vocabulary(backbone: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Raises `InputError` if the tokenizer makes no tokens, or tokens that the table of word vectors does not have."""
    known = {token for row in whole_ids(tokenizer, SAMPLES, special=False) for token in row}
    if not known - {tokenizer.unk_token_id}:
        raise InputError(
            f"The tokenizer of {name} knows no token of any text, as if its vocabulary were empty; its files are "
            "missing or damaged."
        )
    table = input_table(backbone)
    if table is not None and vocabulary_size(tokenizer) > table.num_embeddings:
        words = [word for word, token in tokenizer.get_vocab().items() if token >= table.num_embeddings]
        raise InputError(
            f"The tokenizer of {name} does not fit its weights: the table of word vectors has {table.num_embeddings:,} "
            f"rows, and {len(words):,} tokens have larger numbers (such as {min(words)!r}). Save the model once with "
            "transformers after model.resize_token_embeddings, or remove the added tokens."
        )


def check_pooling_fits(pooling: str, backbone: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Raises `InputError` if there is no such pooling, or the backbone or its tokenizer does not suit it."""
    check_pooling(pooling)
    if pooling == "mask_token" and tokenizer.mask_token is None:
        raise InputError(f"Pooling mask_token needs a tokenizer with a mask token, and that of {name} has none.")
    if isinstance(backbone, StaticBackbone) and pooling != "mean":
        raise InputError(f"{name} is a static encoder, which has only the pooling mean, not {pooling}.")


def check_token_weights(weights: Tensor | None, tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Raises `InputError` if there are weights, but not one for each token."""
    if weights is not None and len(weights) < (size := vocabulary_size(tokenizer)):
        raise InputError(
            f"{name or 'This encoder'} weighs {len(weights):,} tokens, but its vocabulary has {size:,}; count the "
            "frequencies again, see textcl.smooth_inverse_frequency."
        )


def _try_longest(encoder: "Encoder", name: str) -> None:
    """Tries a text of the largest length with one layer, and with all layers only if that fails."""
    before, after = special_edges(encoder.tokenizer)
    row = whole_ids(encoder.tokenizer, ["the cat"])[0]
    words = row[before : len(row) - after] * encoder.max_length
    edge = len(row) - after
    longest = _with_mask_token(encoder, row[:before] + words[: encoder.max_length - before - after] + row[edge:])
    what = f"{name} cannot embed a text of {encoder.max_length} tokens; set a smaller max_length"
    if encoder.layer_weights is None:  # else there must be a layer for each weight
        with suppress(InputError):
            _tried(encoder, _shallow(encoder.backbone), [longest], what)
            return
    _tried(encoder, encoder.backbone, [longest], what)


def _with_mask_token(encoder: "Encoder", row: list[int]) -> list[int]:
    """The row, with a mask token in place of its first word if the pooling needs one."""
    if encoder.pooling != "mask_token":
        return row
    before, _ = special_edges(encoder.tokenizer)
    return [*row[:before], int(encoder.tokenizer.mask_token_id), *row[before + 1 :]]


def _shallow(backbone: PreTrainedModel) -> Any:
    """A copy of a backbone with only its first layer: a text that is too long fails in it too, and much sooner."""
    shallow = evaluation_copy(backbone)
    for module in shallow.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.ModuleList) and len(child) == getattr(backbone.config, "num_hidden_layers", 0):
                setattr(module, name, nn.ModuleList([child[0]]))
    return shallow


def _tried(encoder: "Encoder", backbone: Any, rows: list[list[int]], what: str, training: bool = False) -> Tensor:
    """The vectors of rows, (rows, dim), without dropout, with `training` on the way that keeps a graph.

    Raises:
        InputError: If the backbone raises, or its output does not suit.
    """
    still = encoder.with_()
    still.backbone = evaluation_copy(backbone)
    tokens = {name: tensor.to(encoder.device) for name, tensor in pad(encoder.tokenizer, rows).items()}
    try:
        with torch.set_grad_enabled(training):
            return embed_slice(still, tokens, row_lengths(tokens))[0].detach()
    except _ERRORS as error:
        if isinstance(error, InputError) or extract_tb(error.__traceback__)[-1].filename.startswith(_OWN):
            raise
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"{what}: {type(error).__name__}: {first_line}") from error

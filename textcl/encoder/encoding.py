"""Texts to vectors: tokenised in windows, each distinct text once, similar lengths together, slice by slice."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import Tensor

from textcl.device import KeptMemory, bf16_if_there, to_device
from textcl.dropout import evaluation_copy
from textcl.encoder.batching import (
    Tokens,
    in_slices,
    in_windows,
    on_device,
    on_host,
    prompt_length,
    row_lengths,
    take_rows,
)
from textcl.encoder.forward import behind_pooling, embed_slice
from textcl.encoder.linear import order_weights
from textcl.encoder.static import StaticBackbone, mean_of_tokens
from textcl.progress import Progress
from textcl.ranges import Range
from textcl.tokenising import tokenize
from textcl.views.template import check_in_front, in_prompt

if TYPE_CHECKING:
    from textcl.encoder.encoder import Encoder

BATCH_SIZE = {"cpu": 32, "cuda": 512}
# Texts tokenised at a time, which limits the memory of token lists. A GPU computes in the meantime.
WINDOW = {"cpu": 16384, "cuda": 4096}
# Where there are few texts, those in a large slice differ much in length, and the slice is mostly padding. On a CPU,
# slices from this size on are as fast as larger ones, so they end where the next texts are shorter.
EVEN_FROM = {"cpu": 1024}
MOST_KEPT = 1 << 28  # bytes of freed memory; with 1 << 27 encoding takes 7 % longer, and peaks 60 MiB lower
ORDER_WEIGHTS_FROM = 256  # texts; for fewer, ordering the weights takes longer than it saves


def encode_texts(
    encoder: "Encoder",
    texts: Sequence[str],
    prompt: str,
    *,
    batch_size: int | None,
    show_progress_bar: bool | None,
    bf16: bool,
) -> Tensor:
    """The embeddings of texts, (texts, dim), on the encoder's device. For the arguments see `Encoder.encode`."""
    if batch_size is not None:
        Range(at_least=1, whole=True).check("batch_size", batch_size)
    if isinstance(encoder.backbone, StaticBackbone) and encoder.token_weights is None and not encoder.token_layers:
        with torch.no_grad():
            return behind_pooling(encoder, mean_of_tokens(encoder, texts, prompt, show_progress_bar))
    unique: dict[str, int] = {}
    which = [unique.setdefault(text, len(unique)) for text in texts]
    distinct = sorted(unique, key=len, reverse=True)  # similar lengths together: more characters, more tokens
    device = encoder.device
    dtype = torch.promote_types(encoder.backbone.dtype, torch.float32)
    embeddings = torch.empty(len(distinct), encoder.dimension, dtype=dtype, device=device)
    bar, kept = Progress("Encoding", len(distinct), show=show_progress_bar), KeptMemory(MOST_KEPT)
    bf16 = bf16_if_there(bf16)
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=bf16)
    most = (batch_size or BATCH_SIZE.get(device.type, 32)) * 128
    still = encoder.with_()  # without dropout, and another thread may train the encoder meanwhile
    still.backbone = evaluation_copy(encoder.backbone)
    if bf16 and device.type == "cpu" and len(distinct) >= ORDER_WEIGHTS_FROM:
        order_weights(still.backbone)
    with bar, torch.no_grad(), autocast:
        for window in in_windows(len(distinct), WINDOW.get(device.type, 4096)):
            tokens = tokenize_prompted(encoder, [distinct[i] for i in window], prompt)
            lengths = row_lengths(tokens)
            if "prompt_lengths" in tokens:
                tokens["prompt_lengths"] = on_host(tokens["prompt_lengths"])
            tokens = on_device(tokens, device)

            def embed(
                rows: Tensor, tokens: Tokens = tokens, lengths: Tensor = lengths, start: int = window.start
            ) -> None:
                own, there = lengths[rows], to_device(rows, device)
                of_slice = take_rows(cast("dict[str, Tensor]", tokens), there, max(1, int(own.max())))
                embeddings[start + there] = embed_slice(still, of_slice, own)[0]
                kept.look()
                bar.update(len(rows))

            budget, even_from = min(most, encoder.slicing.token_budget or most), EVEN_FROM.get(device.type)
            in_slices(lengths, budget, embed, encoder.slicing, even_from)
    position = torch.empty(len(distinct), dtype=torch.long)
    for row, text in enumerate(distinct):
        position[unique[text]] = row
    return embeddings[position[which].to(device)] if which else embeddings


def tokenize_prompted(encoder: "Encoder", texts: Sequence[str], prompt: str) -> Tokens:
    """Texts with a prompt as token tensors, see `Encoder.tokenize`."""
    wrap = in_prompt(prompt, encoder.tokenizer, encoder.max_length)
    tokens = cast(Tokens, tokenize(encoder.tokenizer, [wrap(text) for text in texts], encoder.max_length))
    if prompt and not encoder.pool_prompt:
        check_in_front(prompt)
        skipped = prompt_length(encoder.tokenizer, prompt, encoder.max_length)
        tokens["prompt_lengths"] = np.full(len(texts), skipped)
    return tokens

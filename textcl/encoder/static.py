"""Static encoders: a table with one vector for each token; the vector of a text is the mean over its tokens.

The directory is that of sentence-transformers' `StaticEmbedding`: tokenizer.json and model.safetensors. For the rest of
textcl the table is a backbone like any other, one without layers, so that every command takes a static encoder. Only
`encode` has a faster way here, which adds up the rows of the table without padding, as sentence-transformers does.
"""

import json
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.modeling_outputs import BaseModelOutput

from textcl.encoder.understood import tensors
from textcl.errors import InputError
from textcl.progress import Progress
from textcl.tokenising import token_ids
from textcl.views.template import in_prompt

if TYPE_CHECKING:
    from textcl.encoder.encoder import Encoder
    from textcl.encoder.export import Settings

UNCUT = 10**9  # tokens; a static encoder reads texts of any length
_WINDOW = 4096  # texts at a time


class StaticConfig(PretrainedConfig):
    """The sizes of a `StaticBackbone`."""

    model_type = "textcl_static"

    def __init__(self, vocab_size: int = 1, hidden_size: int = 1, **options: Any) -> None:
        super().__init__(**options)
        self.vocab_size, self.hidden_size, self.num_hidden_layers = vocab_size, hidden_size, 0


class StaticBackbone(PreTrainedModel):
    """A table of vectors (tokens, dim) in the place of a transformer; the vector of a token does not depend on others.

    Args:
        config: The sizes of the table.
    """

    config_class = StaticConfig
    _input_embed_layer = "embedding"  # where transformers finds the table

    def __init__(self, config: StaticConfig) -> None:
        super().__init__(config)
        self.embedding = nn.Embedding(config.vocab_size, config.hidden_size)

    @classmethod
    def of(cls, table: Tensor) -> "StaticBackbone":
        """The backbone with this table, (tokens, dim)."""
        with torch.device("meta"):
            backbone = cls(StaticConfig(*table.shape))
        backbone.embedding = nn.Embedding.from_pretrained(table, freeze=False)
        return backbone

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, **options: Any) -> BaseModelOutput:
        return BaseModelOutput(last_hidden_state=self.embedding(input_ids))


def load_static(folder: Path, settings: "Settings", dtype: torch.dtype) -> tuple[StaticBackbone, Any]:
    """The table of a directory as a backbone, and its tokenizer, which puts no special tokens around a text.

    Raises:
        InputError: A file is missing or damaged, or the table has no row for a token.
    """
    file = folder / "tokenizer.json"
    if not file.is_file():
        raise InputError(f"{folder} holds no tokenizer.json.")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        cut = content.get("truncation") or {}
        raw = Tokenizer.from_str(json.dumps({**content, "truncation": None, "padding": None}))
    except Exception as error:
        # the tokenizers library raises Exception itself; ValueError and AttributeError: no JSON, or no object
        if type(error) is not Exception and not isinstance(error, (ValueError, AttributeError)):
            raise
        raise InputError(f"{folder} holds no tokenizer that can be loaded: {error}") from error
    settings.max_length = int(cut.get("max_length", UNCUT))
    tokenizer = fast_tokenizer(raw)
    tokenizer.truncation_side = cut.get("direction", "right").lower()
    return StaticBackbone.of(_table(folder).to(dtype)), tokenizer


def fast_tokenizer(raw: Tokenizer) -> PreTrainedTokenizerFast:
    """A tokenizer of the tokenizers library as one of transformers; it puts no special tokens around a text."""
    special = {each.content for each in raw.get_added_tokens_decoder().values()}
    unknown = json.loads(raw.to_str())["model"].get("unk_token")
    # as a token that the tokenizer does not have yet, it would change how texts are split
    named = {"unk_token": unknown} if unknown in special else {}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, model_max_length=UNCUT, **named)
    tokenizer.backend_tokenizer.post_processor = cast(Any, None)  # transformers has made one that does nothing
    return tokenizer


def _table(folder: Path) -> Tensor:
    """The table of sentence-transformers, or that of model2vec: vectors, the vector of each token, its weight."""
    found = tensors(folder)
    table = found.get("embedding.weight", found.get("embeddings"))
    if table is None or table.ndim != 2 or not table.is_floating_point():
        raise InputError(f"{folder / 'model.safetensors'} must hold a table of vectors, embedding.weight.")
    if "embedding.weight" in found:
        return table
    try:
        if "mapping" in found:
            table = table[found["mapping"].long()]
        if "weights" in found:  # in float32 or wider, as sentence-transformers does
            wide = table.to(torch.promote_types(table.dtype, torch.float32))
            table = (wide * found["weights"][:, None]).to(table.dtype)
    except (IndexError, RuntimeError) as error:
        raise InputError(f"{folder / 'model.safetensors'} is damaged: {error}.") from error
    return table.contiguous()


def save_static(backbone: StaticBackbone, tokenizer: PreTrainedTokenizerBase, length: int, folder: Path) -> None:
    """Writes the table and the tokenizer as sentence-transformers' `StaticEmbedding` does."""
    raw = Tokenizer.from_str(cast(Any, tokenizer).backend_tokenizer.to_str())
    raw.no_padding()
    raw.no_truncation()
    if length < UNCUT:
        raw.enable_truncation(length, direction=tokenizer.truncation_side)
    raw.save(str(folder / "tokenizer.json"))
    save_file({"embedding.weight": backbone.embedding.weight.detach().contiguous()}, folder / "model.safetensors")


def mean_of_tokens(encoder: "Encoder", texts: Sequence[str], prompt: str, show: bool | None) -> Tensor:
    """The means over the tokens of texts, (texts, dim), in float32 or wider; 0 for a text without tokens."""
    table = encoder.word_embeddings.weight
    means = torch.empty(len(texts), table.shape[1], dtype=torch.promote_types(table.dtype, torch.float32))
    means = means.to(table.device)
    wrap = in_prompt(prompt, encoder.tokenizer, encoder.max_length)
    with Progress("Encoding", len(texts), show=show) as bar, torch.no_grad():
        for start in range(0, len(texts), _WINDOW):
            window = [wrap(text) for text in texts[start : start + _WINDOW]]
            ids, offsets = flat(rows_of(encoder.tokenizer, window, encoder.max_length))
            ids, offsets = ids.to(table.device), offsets.to(table.device)
            means[start : start + len(window)] = nn.functional.embedding_bag(ids, table, offsets, mode="mean")
            bar.update(len(window))
    return means


def rows_of(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_length: int = UNCUT) -> list[list[int]]:
    """The tokens of texts without special tokens, cut at `max_length`."""
    raw = getattr(tokenizer, "backend_tokenizer", None)
    if max_length < UNCUT or raw is None or raw.truncation is not None or raw.padding is not None:
        return token_ids(tokenizer, texts, max_length, special=False)
    return [each.ids for each in raw.encode_batch_fast(list(texts), add_special_tokens=False)]


def flat(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Rows of tokens as one tensor, (tokens,), and where each row begins in it, (rows,)."""
    lengths = np.fromiter(map(len, rows), np.int64, len(rows))
    ids = np.fromiter(chain.from_iterable(rows), np.int64, int(lengths.sum()))
    return torch.from_numpy(ids), torch.from_numpy(np.cumsum(lengths) - lengths)

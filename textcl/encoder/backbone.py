"""Functions that prepare a backbone and find out what it can do."""

import inspect
import logging
from typing import cast

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from textcl.device import keep_freed_memory
from textcl.dropout import draw_fast, without_dropout
from textcl.encoder.attention import attend_fast
from textcl.encoder.pooling import DenseTanh

logger = logging.getLogger("textcl")

# The names under which the configurations of the supported architectures keep their dropout rates.
DROPOUT_FIELDS = (
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "dropout",
    "attention_dropout",
    "embedding_dropout",
    "mlp_dropout",
)


def prepare_backbone(backbone: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Changes a backbone in place so that it trains fast; `Encoder.from_pretrained` calls this.

    Dropout layers and attention are replaced by faster ones with the same statistics. The pooler, which textcl does not
    use, is frozen; otherwise DistributedDataParallel would wait for its gradient. A tokenizer without a padding token
    gets its end token as padding token. On a CPU the process keeps freed memory for later use.
    """
    draw_fast(backbone)
    attend_fast(backbone)
    keep_freed_memory()
    if (unused := getattr(backbone, "pooler", None)) is not None:
        unused.requires_grad_(False)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token


def pooler_head(backbone: PreTrainedModel, name: str) -> DenseTanh:
    """A dense tanh layer with the weights of the backbone's own pooler, or random weights if it has none."""
    pooler = getattr(backbone, "pooler", None)
    dense = getattr(pooler, "dense", pooler)  # ALBERT's pooler is the dense layer itself
    head = DenseTanh(int(backbone.config.hidden_size))
    if isinstance(dense, nn.Linear) and dense.weight.shape == head.dense.weight.shape:
        head = head.to(dense.weight.dtype)
        head.dense.load_state_dict(dense.state_dict())
    else:
        head = head.to(dense.weight.dtype if isinstance(dense, nn.Linear) else backbone.dtype)
        logger.warning("%s has no trained pooler; its dense layer starts with random weights.", name or "The backbone")
    return head


def longest_input(backbone: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """The largest number of tokens that the backbone has positions for."""
    positions = getattr(backbone.config, "max_position_embeddings", None) or tokenizer.model_max_length
    return int(min(positions - first_position(backbone), tokenizer.model_max_length))


def first_position(backbone: PreTrainedModel) -> int:
    """The position id of a text's first token: 0, but padding_idx + 1 in the RoBERTa family."""
    table = next((m for n, m in backbone.named_modules() if n.endswith("position_embeddings")), None)
    if isinstance(table, nn.Embedding) and table.padding_idx is not None:
        return table.padding_idx + 1
    return 0


def ordinary_tokens(backbone: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, count: int) -> list[int]:
    """The ids of `count` tokens that are not special, for probing a backbone."""
    table = cast(nn.Embedding, backbone.get_input_embeddings())
    return [i for i in range(table.num_embeddings) if i not in tokenizer.all_special_ids][-count:]


@torch.no_grad()
def order_is_in_position_ids(backbone: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the backbone takes the order of words only from position ids.

    Then moving tokens with their position ids changes nothing, and moving only the position ids changes the result.
    """
    if "position_ids" not in inspect.signature(backbone.forward).parameters:
        return False
    ids = torch.tensor([ordinary_tokens(backbone, tokenizer, 6)], device=backbone.device)
    positions = first_position(backbone) + torch.arange(ids.shape[1], device=ids.device)[None]
    order = torch.tensor([2, 5, 0, 3, 1, 4], device=ids.device)
    cases = ((ids, positions), (ids[:, order], positions[:, order]), (ids, positions[:, order]))
    with without_dropout(backbone):
        plain, moved, shuffled = (
            backbone(input_ids=words, attention_mask=torch.ones_like(words), position_ids=places)[0]
            for words, places in cases
        )
    error, change = (plain[:, order] - moved).abs().max(), (plain - shuffled).abs().max()
    return bool(error < 1e-5 * plain.abs().max() and change > 10 * error)


def add_token(backbone: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, token: str) -> None:
    """Adds a special token to the tokenizer and its row, the mean of the other rows, to the word embeddings."""
    if token in tokenizer.get_vocab():
        return
    tokenizer.add_special_tokens({"additional_special_tokens": [token]})
    table = cast(nn.Embedding, backbone.get_input_embeddings())
    if len(tokenizer) > table.num_embeddings:
        mean = table.weight.detach().mean(dim=0)
        backbone.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        with torch.no_grad():
            cast(nn.Embedding, backbone.get_input_embeddings()).weight[-1] = mean


def compile_layers(backbone: PreTrainedModel) -> None:
    """Compiles each layer on its first use, for rows of any length (`torch.compile`).

    On a GPU the operations between two matrix products become one kernel, and a step of BERT-base takes a fifth less
    time. The first step takes 10 to 20 seconds longer, or less if torch finds earlier compiled code. On a CPU it saves
    no time.
    """
    count = backbone.config.num_hidden_layers
    for module in backbone.modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            for layer in module:
                layer.compile(dynamic=True)
